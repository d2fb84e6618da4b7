//! SmoothQuant (Xiao et al. 2022, arXiv 2211.10438): input channel `k` of a matrix product is divided by
//! `s_k = sqrt(max |x_k| / max |W_k|)`, with the maximum of the activations over calibration texts and of the weights over outputs
//! (alpha is 1/2). Activations and weights are then equally hard to quantize.

use super::layer_weights::LinearKind;
use super::network::{Bert, Network};
use crate::batch::TokenBatch;
use crate::layers::with_values;
use candle_core::Tensor;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// Smaller maxima count as this one, so that a channel without activations or weights keeps a finite factor.
const MAX_ABS_FLOOR: f32 = 1e-5;

/// The maximum absolute activation of each input channel, by layer and [`LinearKind`].
#[derive(Debug)]
pub(super) struct ActivationRanges(pub(super) Vec<[Vec<f32>; 4]>);

impl Bert {
    /// Runs batches of calibration texts through the network, which must be in f32.
    ///
    /// # Errors
    /// The network is not in f32, or an activation is not finite.
    pub(super) fn activation_ranges(&self, cpu: &CpuContext, batches: &[TokenBatch]) -> Result<ActivationRanges> {
        let Network::F32(layers) = &self.network else {
            return Err(Error::internal("calibration needs a network in f32"));
        };
        let empty = || LinearKind::ALL.map(|kind| vec![MAX_ABS_FLOOR; kind.part_shape(&self.config).1]);
        let mut ranges: Vec<_> = layers.iter().map(|_| empty()).collect();
        let mut observe = |layer: usize, kind: LinearKind, x: &Tensor| {
            let range = &mut ranges[layer][kind as usize];
            with_values(x, |x| {
                for row in x.chunks_exact(range.len()) {
                    // `f32::max` ignores NaN, so NaN counts as infinity.
                    let abs = |v: &f32| if v.is_nan() { f32::INFINITY } else { v.abs() };
                    range.iter_mut().zip(row).for_each(|(r, v)| *r = r.max(abs(v)));
                }
                Ok(())
            })
        };
        for batch in batches {
            self.forward_f32(cpu, layers, batch, &mut observe)?;
        }
        if ranges.iter().flatten().flatten().any(|r| !r.is_finite()) {
            return Err(Error::invalid_model("an activation is not finite: the weights are damaged"));
        }
        Ok(ActivationRanges(ranges))
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
