//! Attention with integer products. One instruction multiplies four pairs of bytes per lane (`dpbusd`, `sdot`; three instructions on
//! AVX2 without VNNI), where float32 multiplies one pair; `cargo bench -p tealight-kernels` prints the time of both. The error is at
//! most 0.02 for values from -1 to 1 (`ATTENTION_ERROR` in `tests/kernels/attention.rs`).
//!
//! Each row of queries, keys and values of a head has its own scale and symmetric quantized values. Scores are exact integer sums
//! times two scales; the softmax is float32. A softmax weight `p` is then multiplied by the scale of its value, `p s_v`, and a row
//! of these products is quantized to 0..=255 (0..=127 on AVX2 without VNNI), the largest to the highest value, so that the second
//! product is also an exact integer sum. Scaling by the largest `p` alone would waste most of the range: the tokens that attract
//! most attention tend to have small values (attention sinks: Bondarenko et al. 2023, arXiv 2306.12929; Xiao et al. 2023, arXiv
//! 2309.17453). `int8_attention_keeps_small_weights_of_large_values` tests this case.

mod kv;
mod queries;

pub use kv::QuantizedKv;
pub use queries::{QUERY_ROWS, QueryScratch, StridedRows, sdpa_quantized_kv};

use super::views::{HeadSlice, Qkv, ScoreMod};
use crate::isa::Isa;

/// Scratch memory that calls of [`sdpa`] can share.
#[derive(Debug, Default)]
pub struct SdpaScratch {
    kv: QuantizedKv,
    queries: QueryScratch,
}

/// Computes `softmax(q k^T / divisor + bias) v` for the queries of a head. Row `i` is written to
/// `out[i * out_stride..][..head_dim]`.
///
/// NaN or infinity in a query makes that row NaN; in a key or a value, it makes all rows of the sequence NaN.
///
/// # Panics
/// If rows, columns or `out` are outside their slices, or `head_dim` is not a multiple of 16.
pub fn sdpa(
    isa: Isa,
    x: Qkv,
    head: &HeadSlice,
    score_mod: ScoreMod,
    scratch: &mut SdpaScratch,
    out: &mut [f32],
    out_stride: usize,
) {
    head.check(x, out.len(), out_stride);
    let SdpaScratch { kv, queries } = scratch;
    kv.quantize(isa, x, head);
    let rows = StridedRows { data: &x.q[head.queries.start * x.stride + head.first_column..], stride: x.stride };
    sdpa_quantized_kv(isa, kv, rows, head.queries.len(), score_mod, queries, out, out_stride);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Scalar;

    /// AVX2 without VNNI quantizes to 7 bits. The scalar kernel gives the same bits if it also does so.
    #[test]
    fn avx2_equals_scalar_kernel_with_7_bits() {
        let Ok(avx2) = Isa::from_name("avx2") else { return };
        let (tokens, head_dim) = (37, 32);
        let stride = 3 * head_dim;
        let x: Vec<f32> = (0..tokens * stride).map(|i| (i as f32 * 0.37).sin() * (1.0 + (i % 7) as f32)).collect();
        let rows = Qkv { q: &x, k: &x[head_dim..], v: &x[2 * head_dim..], stride };
        let head = HeadSlice { sequence: 0..tokens, queries: 0..tokens, first_column: 0, head_dim };
        let (mut found, mut expected) = (vec![0.0; tokens * head_dim], vec![0.0; tokens * head_dim]);
        let score_mod = ScoreMod::scaled(head_dim);
        sdpa(avx2, rows, &head, score_mod, &mut SdpaScratch::default(), &mut found, head_dim);
        let SdpaScratch { mut kv, mut queries } = SdpaScratch::default();
        kv.resize(tokens, head_dim);
        queries.resize(&kv);
        let q = StridedRows { data: &x, stride };
        // SAFETY: the scalar type needs no features; sizes are those that `sdpa` accepted.
        unsafe {
            kv::quantize_kv::<Scalar<127>>(rows, &head, &mut kv);
            queries::sdpa_rows::<Scalar<127>>(&kv, q, tokens, score_mod, &mut queries, &mut expected, head_dim);
        }
        assert_eq!(found, expected);
    }
}
