//! What is added to the scores of attention because of the positions of query and key.

use super::encoder::LayerRun;
use std::sync::Arc;
use tealight_kernels::attention::ScoreBias;
use tealight_kernels::rowwise;

/// The weights behind a bias of the scores.
#[derive(Debug)]
pub enum PositionBiasWeights {
    /// No bias.
    None,
    /// ALiBi: a slope for each head.
    Alibi(Vec<f32>),
    /// A number for each head and distance, which all layers share.
    Distances(Arc<DistanceBias>),
    /// Disentangled attention.
    Disentangled(Disentangled),
}

/// The bias of each head for each distance.
#[derive(Debug)]
pub struct DistanceBias {
    /// `[heads, 2 * max_distance + 1]`, by the position of the key minus that of the query, from `-max_distance` on.
    values: Vec<f32>,
    /// Larger distances have the bias of this one.
    max_distance: usize,
}

impl DistanceBias {
    /// The bias by T5's buckets, from `table [buckets, heads]`.
    pub(super) fn from_buckets(table: &[f32], buckets: usize, max_distance: usize) -> Self {
        let (heads, max) = (table.len() / buckets, max_distance as isize);
        let value = |head: usize, d: isize| table[relative_bucket(d, buckets, max_distance) * heads + head];
        Self { values: (0..heads).flat_map(|head| (-max..=max).map(move |d| value(head, d))).collect(), max_distance }
    }

    fn at(&self, head: usize, distance: isize) -> f32 {
        let max = self.max_distance as isize;
        self.values[head * (2 * self.max_distance + 1) + (distance.clamp(-max, max) + max) as usize]
    }
}

/// Embeddings of distances, projected for one layer.
#[derive(Debug)]
pub struct Disentangled {
    /// Keys of distances, `[heads][2 * span][padded head_dim]`, or empty.
    pub keys: Vec<f32>,
    /// Queries of distances, `[heads][2 * span][padded head_dim]`, or empty.
    pub queries: Vec<f32>,
    /// Rows of each head are half of the table for each direction.
    pub span: usize,
    /// Above `span / 2`, distances share logarithmic buckets up to this distance; 0 for no buckets.
    pub max_distance: usize,
}

/// Which keys a query attends to, and the bias of their scores.
#[derive(Debug)]
pub struct AttentionPattern {
    /// Only keys that do not follow the query.
    pub causal: bool,
    /// Only keys at a distance of at most this.
    pub window: Option<usize>,
    /// The weights of the bias.
    pub bias: PositionBiasWeights,
}

/// The queries and keys of one head of one text, in rows.
pub(super) struct HeadRows<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub stride: usize,
    pub head_dim: usize,
    /// Number of keys.
    pub tokens: usize,
    /// The first query, counted from the first key.
    pub first_query: usize,
    pub queries: usize,
    /// Scores are divided by this.
    pub divisor: f32,
}

impl AttentionPattern {
    /// The bias of the scores of a head, or `None` if every score counts as it is. `buffer` holds the values.
    pub(super) fn bias<'a>(
        &self,
        run: &LayerRun,
        head: usize,
        rows: &HeadRows,
        buffer: &'a mut Vec<f32>,
    ) -> Option<ScoreBias<'a>> {
        let HeadRows { tokens, first_query, .. } = *rows;
        if let PositionBiasWeights::Disentangled(weights) = &self.bias {
            weights.bias(run, head, rows, buffer);
            return Some(ScoreBias::rows(buffer, tokens));
        }
        let masks = self.causal || self.window.is_some_and(|window| window + 1 < tokens);
        if !masks && matches!(self.bias, PositionBiasWeights::None) {
            return None;
        }
        buffer.clear();
        buffer.extend((0..2 * tokens - 1).map(|i| {
            let distance = i as isize - (tokens as isize - 1);
            let is_masked = self.causal && distance > 0 || self.window.is_some_and(|w| distance.unsigned_abs() > w);
            if is_masked { f32::NEG_INFINITY } else { self.bias.at(head, distance) }
        }));
        Some(ScoreBias::relative(buffer, tokens, first_query))
    }
}

impl PositionBiasWeights {
    /// The bias of a key at a distance (the position of the key minus that of the query).
    fn at(&self, head: usize, distance: isize) -> f32 {
        match self {
            PositionBiasWeights::None | PositionBiasWeights::Disentangled(_) => 0.0,
            PositionBiasWeights::Alibi(slopes) => -slopes[head] * distance.unsigned_abs() as f32,
            PositionBiasWeights::Distances(bias) => bias.at(head, distance),
        }
    }
}

/// The slopes of ALiBi: a geometric sequence for a power of two of heads; for other numbers, those of the power of two below and
/// every other slope of the one above.
pub(crate) fn alibi_slopes(heads: usize) -> Vec<f32> {
    let of_power = |n: usize| (1..=n).map(move |i| 2f64.powf(-8.0 * i as f64 / n as f64) as f32);
    let below = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    of_power(below).chain(of_power(2 * below).step_by(2)).take(heads).collect()
}

/// T5's bucket of a distance: half of the buckets for each direction, of which half are single distances and half logarithmic.
fn relative_bucket(distance: isize, buckets: usize, max_distance: usize) -> usize {
    let buckets = buckets / 2;
    let offset = if distance > 0 { buckets } else { 0 };
    let (distance, exact) = (distance.unsigned_abs(), buckets / 2);
    if distance < exact {
        return offset + distance;
    }
    // In f32, as the reference computes it: the result is truncated, so its rounding matters.
    let (distance, exact_f32) = (distance as f32, exact as f32);
    let log = (distance / exact_f32).ln() / (max_distance as f64 / exact as f64).ln() as f32;
    offset + (exact + (log * (buckets - exact) as f32) as usize).min(buckets - 1)
}

impl Disentangled {
    /// The row of the table for a distance (the position of the query minus that of the key).
    fn row(&self, distance: isize) -> usize {
        let span = self.span as isize;
        (self.bucket(distance) + span).clamp(0, 2 * span - 1) as usize
    }

    /// Distances above half of the span share logarithmic buckets.
    fn bucket(&self, distance: isize) -> isize {
        let mid = (self.span / 2) as f32;
        let magnitude = distance.unsigned_abs() as f32;
        if self.max_distance == 0 || magnitude <= mid {
            return distance;
        }
        // In f32, as the reference computes it.
        let log = (magnitude / mid).ln() / ((self.max_distance as f64 - 1.0) / mid as f64).ln() as f32;
        distance.signum() * ((log * (mid - 1.0)).ceil() + mid) as isize
    }

    /// Writes the bias `[queries, tokens]` to `out`.
    fn bias(&self, run: &LayerRun, head: usize, rows: &HeadRows, out: &mut Vec<f32>) {
        let HeadRows { tokens, first_query, queries, head_dim, divisor, .. } = *rows;
        out.clear();
        out.resize(queries * tokens, 0.0);
        let table = |all: &'_ [f32]| -> std::ops::Range<usize> {
            let len = 2 * self.span * head_dim;
            if all.is_empty() { 0..0 } else { head * len..(head + 1) * len }
        };
        let row_of: Vec<usize> = (0..queries + tokens)
            .map(|i| self.row(i as isize + first_query as isize - (tokens as isize - 1)))
            .collect();
        // The rows of the table for a query or a key ascend or descend with the distance, so those in use are adjacent.
        let mut products = vec![];
        let multiply = |x: &[f32], table: &[f32], used: &[usize], products: &mut Vec<f32>| {
            let (first, end) = (used[0], used[used.len() - 1] + 1);
            products.resize(end - first, 0.0);
            rowwise::matmul(run.cpu.isa, x, &table[first * head_dim..end * head_dim], head_dim, products);
            first
        };
        let keys = &self.keys[table(&self.keys)];
        for i in (0..queries).filter(|_| !keys.is_empty()) {
            let q = &rows.q[i * rows.stride..][..head_dim];
            let first = multiply(q, keys, &row_of[i..i + tokens], &mut products);
            for (j, out) in out[i * tokens..(i + 1) * tokens].iter_mut().enumerate() {
                *out += products[row_of[i + tokens - 1 - j] - first] / divisor;
            }
        }
        let queries_of_distances = &self.queries[table(&self.queries)];
        for j in (0..tokens).filter(|_| !queries_of_distances.is_empty()) {
            let k = &rows.k[j * rows.stride..][..head_dim];
            let used = &row_of[tokens - 1 - j..tokens - 1 - j + queries];
            let first = multiply(k, queries_of_distances, used, &mut products);
            for i in 0..queries {
                out[i * tokens + j] += products[row_of[i + tokens - 1 - j] - first] / divisor;
            }
        }
    }
}
