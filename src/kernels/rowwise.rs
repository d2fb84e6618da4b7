//! What works on one row at a time: normalisation, activation, sums.

use super::{LANES, dot_lanes, kernel, sum_lanes};

#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for c in chunks {
        for l in 0..LANES {
            lanes[l] += c[l];
        }
    }
    for (lane, v) in lanes.iter_mut().zip(tail) {
        *lane += v;
    }
    sum_lanes(lanes)
}

kernel! {
    /// LayerNorm over each row of `weight.len()` values, in place: `(x - mean) / sqrt(variance + eps) * weight + bias`
    /// with the biased variance (Ba, Kiros, Hinton 2016, arXiv 1607.06450).
    pub fn layer_norm(rows: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
        let n = weight.len() as f32;
        for row in rows.chunks_exact_mut(weight.len()) {
            let mean = sum(row) / n;
            for v in row.iter_mut() {
                *v -= mean;
            }
            let scale = 1.0 / (dot_lanes(row, row) / n + eps).sqrt();
            for ((v, w), b) in row.iter_mut().zip(weight).zip(bias) {
                *v = *v * scale * w + b;
            }
        }
    }
}

kernel! {
    /// Adds `bias` to each row of `bias.len()` values.
    pub fn add_bias(rows: &mut [f32], bias: &[f32]) {
        for row in rows.chunks_exact_mut(bias.len()) {
            for (v, b) in row.iter_mut().zip(bias) {
                *v += b;
            }
        }
    }
}

kernel! {
    /// `x += y`, value by value.
    pub fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

kernel! {
    /// The dot product of two rows of equal length.
    pub fn dot(x: &[f32], y: &[f32]) -> f32 {
        dot_lanes(x, y)
    }
}

kernel! {
    /// `out[r, c] = x[r] . w[c]` in f32, for rows of `k` values.
    pub fn matmul(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
        for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(w.len() / k)) {
            for (value, w) in out.iter_mut().zip(w.chunks_exact(k)) {
                *value = dot_lanes(x, w);
            }
        }
    }
}

/// GELU with the exact error function, `x * (1 + erf(x / sqrt 2)) / 2` (Hendrycks and Gimpel 2016, arXiv 1606.08415).
pub fn gelu_erf(rows: &mut [f32]) {
    for v in rows {
        *v = 0.5 * *v * (1.0 + libm::erff(*v * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// GELU with the tanh approximation, which models trained as `gelu_new` or `gelu_pytorch_tanh` want.
pub fn gelu_tanh(rows: &mut [f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    for v in rows {
        let inner = SQRT_2_OVER_PI * (*v + 0.044_715 * *v * *v * *v);
        *v = 0.5 * *v * (1.0 + libm::tanhf(inner));
    }
}

/// Scales a vector to length 1; a zero vector stays zero.
pub fn normalise(vector: &mut [f32]) {
    let norm = dot_lanes(vector, vector).sqrt();
    if norm > 0.0 {
        for v in vector {
            *v /= norm;
        }
    }
}
