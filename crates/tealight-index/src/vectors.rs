//! Validation of vectors and their float16 form.

use crate::format::Metric;
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use tealight_core::{Error, Result};
use tealight_kernels::scoring::F16_ALIGN;

/// Largest dimension of a vector.
pub const MAX_DIMENSION: usize = 65_536;
/// Largest norm of a vector for the metrics dot and l2: float32 can represent all products and squares of such vectors.
pub const MAX_NORM: f64 = 1e17;

/// A vector divided by its largest magnitude as half floats, padded to [`F16_ALIGN`]; and that magnitude.
pub(crate) fn encode_f16(vector: &[f32]) -> (Vec<u16>, f32) {
    let max_abs = vector.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    // Dividing, because the reciprocal of a subnormal number is infinite.
    let divisor = if max_abs > 0.0 { max_abs } else { 1.0 };
    let mut halves: Vec<u16> = vector.iter().map(|v| f16::from_f32(v / divisor).to_bits()).collect();
    halves.resize(vector.len().next_multiple_of(F16_ALIGN), 0);
    (halves, max_abs)
}

/// The vector of half floats times their scale.
pub(crate) fn decode_f16(halves: &[u16], scale: f32) -> Vec<f32> {
    let mut vector = vec![0.0; halves.len()];
    halves.reinterpret_cast::<f16>().convert_to_f32_slice(&mut vector);
    vector.iter_mut().for_each(|v| *v *= scale);
    vector
}

/// A row or query as the metric needs it: scaled to unit norm for cosine.
///
/// # Errors
/// The dimension differs, a value is not finite, the vector is all zeros for the metric cosine, or its norm exceeds [`MAX_NORM`]
/// for another metric.
pub(crate) fn prepare_vector(vector: &[f32], dimension: usize, metric: Metric) -> Result<Vec<f32>> {
    let invalid = |message: String| Error::invalid_value("vector", message);
    if vector.len() != dimension {
        return Err(invalid(format!("vector has {} dimensions; the index has {dimension}", vector.len())));
    }
    if let Some(i) = vector.iter().position(|v| !v.is_finite()) {
        return Err(invalid(format!("vector has {} at position {i}; expected finite values", vector[i])));
    }
    let norm = vector.iter().map(|v| *v as f64 * *v as f64).sum::<f64>().sqrt();
    match metric {
        Metric::Cosine if norm == 0.0 => {
            Err(invalid("vector is all zeros, for which the metric cosine is undefined".to_string()))
        }
        Metric::Cosine => Ok(vector.iter().map(|v| (*v as f64 / norm) as f32).collect()),
        Metric::Dot | Metric::L2 if norm > MAX_NORM => {
            Err(invalid(format!("vector has norm {norm:e}; expected at most {MAX_NORM:e} for the metrics dot and l2")))
        }
        Metric::Dot | Metric::L2 => Ok(vector.to_vec()),
    }
}

/// The offset that is subtracted from a row's inner product, so that scores order rows by the metric.
pub(crate) fn score_offset(row: &[f32], metric: Metric) -> f32 {
    if metric == Metric::L2 { row.iter().map(|v| v * v).sum::<f32>() / 2.0 } else { 0.0 }
}
