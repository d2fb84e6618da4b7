//! SmoothQuant (Xiao et al. 2022, arXiv 2211.10438): input channel `k` of a matrix product is divided by
//! `s_k = sqrt(max |x_k| / max |W_k|)`, with the maximum of the activations over calibration texts and of the weights over outputs
//! (alpha is 1/2). Activations and weights are then equally hard to quantize.

use crate::batch::TokenBatch;
use crate::int8::{Int8Encoder, LayerLoader, LinearKind};
use std::sync::{Mutex, PoisonError};
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// Smaller maxima count as this one, so that a channel without activations or weights keeps a finite factor.
const MAX_ABS_FLOOR: f32 = 1e-5;

/// The maximum absolute activation of each input channel, by layer and [`LinearKind`], without padding.
#[derive(Debug)]
pub(super) struct ActivationRanges(pub(super) Vec<[Vec<f32>; 4]>);

impl ActivationRanges {
    /// Runs batches of calibration texts through the network, and looks at activations just before they are quantized.
    ///
    /// # Errors
    /// An activation is not finite.
    pub(super) fn measure(
        cpu: &CpuContext,
        encoder: &Int8Encoder,
        loader: &LayerLoader,
        batches: &[TokenBatch],
    ) -> Result<Self> {
        let columns = LinearKind::ALL.map(|kind| loader.shape(kind).1);
        let empty = || columns.map(|columns| vec![MAX_ABS_FLOOR; columns.padded_size()]);
        let ranges: Mutex<Vec<_>> = Mutex::new(loader.spec.layers.iter().map(|_| empty()).collect());
        let observer = |layer: usize, kind: LinearKind, first: usize, rows: &[f32], row_len: usize| {
            let mut ranges = ranges.lock().unwrap_or_else(PoisonError::into_inner);
            let range = &mut ranges[layer][kind as usize][first..first + row_len];
            for row in rows.chunks_exact(row_len) {
                // `f32::max` ignores NaN, so NaN counts as infinity.
                let abs = |v: &f32| if v.is_nan() { f32::INFINITY } else { v.abs() };
                range.iter_mut().zip(row).for_each(|(r, v)| *r = r.max(abs(v)));
            }
        };
        for batch in batches {
            encoder.forward(cpu, batch, Some(&observer))?;
        }
        let ranges = ranges.into_inner().unwrap_or_else(PoisonError::into_inner);
        if ranges.iter().flatten().flatten().any(|r| !r.is_finite()) {
            return Err(Error::invalid_model("an activation is not finite: the weights are damaged"));
        }
        let unpadded = |layer: [Vec<f32>; 4]| {
            let mut kinds = layer.into_iter().zip(columns).map(|(range, columns)| columns.unpad(&range));
            std::array::from_fn(|_| kinds.next().unwrap_or_default())
        };
        Ok(Self(ranges.into_iter().map(unpadded).collect()))
    }
}

/// The divisors of the input channels, `[K]`, from the ranges of the activations `[K]` and the weights `[N, K]`.
pub(super) fn smoothing_factors(range: &[f32], weights: &[f32]) -> Vec<f32> {
    let mut max_abs = vec![MAX_ABS_FLOOR; range.len()];
    for row in weights.chunks_exact(range.len()) {
        max_abs.iter_mut().zip(row).for_each(|(m, w)| *m = m.max(w.abs()));
    }
    range.iter().zip(max_abs).map(|(r, w)| (r / w).sqrt()).collect()
}
