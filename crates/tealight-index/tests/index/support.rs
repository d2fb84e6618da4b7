//! Vectors, documents and queries for the tests of the index.

use serde_json::json;
use tealight_index::{IndexDocument, SearchQuery};

/// Pseudo-random numbers with an approximately normal distribution: sums of twelve uniform ones.
pub fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(|_| (0..12).map(|_| next()).sum::<f32>() - 6.0).collect()
}

pub fn document(id: usize) -> IndexDocument {
    let color = ["red", "green", "blue"][id % 3];
    let metadata = json!({"number": id, "tags": [color, "all"], "third": id % 3});
    IndexDocument {
        id: format!("d{id}"),
        text: format!("{color} number {id}"),
        metadata: metadata.as_object().unwrap().clone(),
    }
}

pub fn by_vector(vector: &[f32], top_k: usize) -> SearchQuery<'_> {
    SearchQuery { vector: Some(vector), top_k, ..SearchQuery::default() }
}
