//! Fixtures and comparisons.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tealight_core::Result;
use tealight_kernels::{CpuContext, Isa};
use tealight_models::tokenizer::TruncationDirection;
use tealight_models::{Embedder, Precision, TokenBatch, truncate_and_normalize};

/// Maximum difference of a value to the reference in f32. The tanh approximation of GELU would differ by 9e-5, a wrong epsilon by
/// 6e-5.
pub const F32_TOLERANCE: f32 = 1e-5;
/// Minimum cosine similarity of int8 to the reference.
pub const INT8_COSINE: f32 = 0.999;

#[derive(serde::Deserialize)]
pub struct Expected {
    pub texts: Vec<String>,
    pub ids: Vec<Vec<u32>>,
    pub embedding: Vec<Vec<f32>>,
    pub pooled: Option<BTreeMap<String, Vec<Vec<f32>>>>,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn bert_fixtures() -> PathBuf {
    root().join("tests/fixtures/models")
}

pub fn llama_fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/llama").join(name)
}

/// Files that `tests/check_text` downloads and makes.
pub fn text_downloads() -> PathBuf {
    root().join("target/text")
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The results of the reference implementation, by fixture (tests/fixtures/make_models.py).
pub fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_value(read_json(&bert_fixtures().join("expected.json"))).unwrap()
}

pub fn cpu() -> CpuContext {
    CpuContext::new(Isa::detect(), 2)
}

/// Every instruction set of this CPU except the slow scalar one.
pub fn simd_isas() -> Vec<Isa> {
    Isa::available().into_iter().filter(|isa| isa.as_str() != "scalar").collect()
}

pub fn load(path: &Path, precision: Precision) -> Result<Embedder> {
    Embedder::load(&cpu(), path, precision)
}

pub fn tokenize(model: &Embedder, text: &str) -> Vec<u32> {
    let ids = model.tokenizer.add_special_tokens(&model.tokenizer.encode(text).unwrap());
    model.tokenizer.truncate(&ids, model.max_tokens(), TruncationDirection::Right)
}

/// Normalized embeddings of texts, in one batch.
pub fn embed(model: &Embedder, texts: &[String]) -> Vec<Vec<f32>> {
    let ids: Vec<_> = texts.iter().map(|text| tokenize(model, text)).collect();
    let batch = TokenBatch::new(ids.iter().map(Vec::as_slice));
    let mut vectors = model.sentence_embeddings(&cpu(), &batch).unwrap();
    vectors.iter_mut().for_each(|vector| truncate_and_normalize(vector, None, true));
    vectors
}

pub fn max_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    assert_eq!(a.iter().flatten().count(), b.iter().flatten().count());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The lowest cosine similarity of normalized vectors.
pub fn min_cosine(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let cosine = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    a.iter().zip(b).map(cosine).fold(1.0, f32::min)
}

/// The cosine similarity of vectors of any length.
pub fn cosine_of(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    cosine(a, &b.iter().map(|v| *v as f64).collect::<Vec<_>>()) as f32
}

pub fn cosine(a: &[f32], b: &[f64]) -> f64 {
    let dot = a.iter().zip(b).map(|(a, b)| *a as f64 * b).sum::<f64>();
    let norm = |x: f64| x.sqrt();
    dot / (norm(a.iter().map(|v| (*v as f64).powi(2)).sum()) * norm(b.iter().map(|v| v * v).sum()))
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// A copy of a BERT model folder.
pub fn copy_folder(name: &str) -> tempfile::TempDir {
    fn copy_all(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in from.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let to = to.join(path.file_name().unwrap());
            if path.is_dir() { copy_all(&path, &to) } else { assert!(std::fs::copy(&path, &to).is_ok()) }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy_all(&bert_fixtures().join(name), folder.path());
    folder
}
