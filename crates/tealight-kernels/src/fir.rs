//! Finite impulse response (FIR) filters of audio.

use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::{LANES, Simd};

/// Filters are padded to a multiple of this length.
pub const TAPS_ALIGN: usize = LANES;
/// Outputs that share the loads of the filter. The outputs that remain after whole tiles are computed one at a time.
pub const TILE_OUTPUTS: usize = 4;

/// Filters samples and keeps every `step`-th output: `out[i]` is the dot product of `taps` and `samples[i * step..][..taps.len()]`.
///
/// # Panics
/// If the number of taps is not a multiple of [`TAPS_ALIGN`], or there are too few samples for the outputs.
pub fn decimate(isa: Isa, taps: &[f32], samples: &[f32], step: usize, out: &mut [f32]) {
    assert!(taps.len().is_multiple_of(TAPS_ALIGN));
    assert!(out.is_empty() || samples.len().checked_sub(taps.len()).is_some_and(|last| (out.len() - 1) * step <= last));
    dispatch!(isa, outputs(taps: &[f32], samples: &[f32], step: usize, out: &mut [f32]));
}

#[inline(always)]
unsafe fn outputs<S: Simd>(taps: &[f32], samples: &[f32], step: usize, out: &mut [f32]) {
    let (tiles, rest) = out.as_chunks_mut::<TILE_OUTPUTS>();
    let first_of_rest = tiles.len() * TILE_OUTPUTS;
    // SAFETY: the caller checked the lengths and vouches for the instruction set.
    unsafe {
        for (i, out) in tiles.iter_mut().enumerate() {
            tile::<S, TILE_OUTPUTS>(taps, samples.as_ptr().add(i * TILE_OUTPUTS * step), step, out);
        }
        for (i, out) in rest.iter_mut().enumerate() {
            tile::<S, 1>(taps, samples.as_ptr().add((first_of_rest + i) * step), step, std::array::from_mut(out));
        }
    }
}

/// `N` outputs, each summed in the same order for every `N`.
#[inline(always)]
unsafe fn tile<S: Simd, const N: usize>(taps: &[f32], samples: *const f32, step: usize, out: &mut [f32; N]) {
    // SAFETY: there are `(N - 1) * step + taps.len()` samples, and whole vectors of taps.
    unsafe {
        let (mut sums, mut windows) = ([S::splat(0.0); N], [samples; N]);
        for (output, window) in windows.iter_mut().enumerate() {
            *window = samples.add(output * step);
        }
        for i in (0..taps.len()).step_by(LANES) {
            let taps = S::load(taps.as_ptr().add(i));
            for (sum, window) in sums.iter_mut().zip(&windows) {
                *sum = taps.mul_add(S::load(window.add(i)), *sum);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum.reduce_sum();
        }
    }
}
