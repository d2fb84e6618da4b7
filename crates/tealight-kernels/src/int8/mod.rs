//! Products with int8 weights.
//!
//! Weights are symmetric with one scale `t` per output and group along K: `smooth w = t q` with `q` from -127 to 127. Activations are
//! quantized with [`QuantScheme::Asymmetric`](crate::quantize::QuantScheme), one scale `s` and zero point `z` per row and group:
//! `x / smooth = s (u - z)`. The product is `y = bias + sum over groups of s t (sum u q - z sum q)`. Sums inside a group are exact
//! integers.
//!
//! Dividing each input channel by `smooth` and multiplying its weights by the same factor evens out the range of the channels
//! (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438).

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
mod packed;

pub use crate::gemm::{Epilogue, NR};
pub use packed::{K_ALIGN, MAX_GROUP_SIZE, PackedRhs};

use crate::dispatch::dispatch;
use crate::gemm::{self, check_sizes};
use crate::isa::Isa;
use crate::quantize::QuantizedRows;
use crate::simd::Simd;
use packed::check_encoding;
use std::ops::Range;

/// `out [rows, columns] = lhs rhs^T + bias` for the outputs `columns` of `rhs`, combined with `out` by the [`Epilogue`].
///
/// # Panics
/// If `lhs` was not quantized for the layout of `rhs` or with larger values than this instruction set multiplies exactly,
/// `columns` are not whole panels of [`NR`] outputs, or the size of `out` is not `rows * columns`.
pub fn gemm(
    isa: Isa,
    lhs: &QuantizedRows,
    rhs: &PackedRhs,
    columns: Range<usize>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    check_sizes(lhs, rhs, rhs.n(), &columns, out);
    #[cfg(target_arch = "x86_64")]
    if let Isa::Amx(_) = isa
        && lhs.rows() > amx::MAX_VECTOR_ROWS
    {
        return amx::gemm(isa, lhs, rhs, columns, epilogue, out);
    }
    dispatch!(isa, multiply(lhs: &QuantizedRows, rhs: &PackedRhs, columns: Range<usize>, epilogue: Epilogue, out: &mut [f32]));
}

#[inline(always)]
unsafe fn multiply<S: Simd>(
    lhs: &QuantizedRows,
    rhs: &PackedRhs,
    columns: Range<usize>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    check_encoding::<S>(lhs);
    // SAFETY: `gemm` checked the sizes; the caller guarantees the instruction set.
    unsafe { gemm::gemm_impl::<S, PackedRhs>(lhs, rhs, columns, epilogue, out) };
}
