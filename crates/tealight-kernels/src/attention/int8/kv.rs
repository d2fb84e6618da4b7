//! Quantized keys and values of one head.
#![allow(clippy::needless_range_loop)] // Indices are rows that are quantized together.

use crate::attention::views::{HeadSlice, Qkv};
use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::quantize::{MIN_RANGE, ValueEncoding};
use crate::simd::{LANES, Simd};

/// Largest magnitude of quantized keys and values.
const KV_QMAX: f32 = 127.0;

/// Tokens padded to two vectors, the widest tile.
pub(super) fn padded(tokens: usize) -> usize {
    tokens.next_multiple_of(2 * LANES)
}

/// The keys and values of one head of a sequence, quantized once for any number of queries.
#[derive(Debug, Default, Clone)]
pub struct QuantizedKv {
    pub(super) tokens: usize,
    pub(super) head_dim: usize,
    /// Quantized keys, `[padded tokens / 16][head_dim / 4][16][4]`: blocks of 16 tokens, whose scores are the lanes of a vector.
    pub(super) keys: Vec<i8>,
    /// Scale of each key, `[padded tokens]`.
    pub(super) key_scales: Vec<f32>,
    /// Initial value of the integer sums, `[padded tokens]`, which cancels the zero point of the queries.
    pub(super) key_acc_init: Vec<i32>,
    /// Quantized values, `[tokens / 4][head_dim][4]`.
    pub(super) values: Vec<i8>,
    /// Scale of each value, `[padded tokens]`.
    pub(super) value_scales: Vec<f32>,
    /// Scratch for the reciprocal scales of keys, then of values, `[padded tokens]`.
    inv_scales: Vec<f32>,
    /// 0, or NaN if a value of the sequence is not finite. Added to the result, because quantized values cannot be NaN.
    pub(super) nan_flag: f32,
    /// Sums of the quantized values, `[head_dim]`, if the instruction set needs them.
    pub(super) value_sums: Vec<f32>,
    /// How this instruction set encodes queries and weights.
    pub(super) encoding: ValueEncoding,
}

impl QuantizedKv {
    /// Quantizes the keys and values of a head, replacing those from an earlier call.
    ///
    /// # Panics
    /// If rows or columns are outside their slices, or `head_dim` is not a multiple of 16.
    pub fn quantize(&mut self, isa: Isa, x: Qkv, head: &HeadSlice) {
        head.check_keys(x);
        self.resize(head.sequence.len(), head.head_dim);
        let kv = self;
        dispatch!(isa, quantize_kv(x: Qkv, head: &HeadSlice, kv: &mut QuantizedKv));
    }

    pub(super) fn resize(&mut self, tokens: usize, head_dim: usize) {
        let padded = padded(tokens);
        (self.tokens, self.head_dim) = (tokens, head_dim);
        // Keys of padding may be anything. Its V rows must be finite, as quantized numbers always are.
        self.keys.resize(padded * head_dim, 0);
        self.values.resize(tokens.next_multiple_of(4) * head_dim, 0);
        self.key_scales.resize(padded, 0.0);
        self.key_acc_init.resize(padded, 0);
        self.value_scales.resize(padded, 0.0);
        self.inv_scales.resize(padded, 0.0);
        self.value_sums.clear();
        self.value_sums.resize(head_dim, 0.0);
    }
}

/// The encoding of queries and weights on an instruction set.
pub(super) fn encoding<S: Simd>() -> ValueEncoding {
    ValueEncoding::Unsigned { qmax: S::QMAX, storage_offset: S::STORAGE_OFFSET }
}

#[inline(always)]
pub(super) unsafe fn quantize_kv<S: Simd>(x: Qkv, head: &HeadSlice, kv: &mut QuantizedKv) {
    kv.encoding = encoding::<S>();
    // SAFETY: `QuantizedKv::quantize` checked that all rows and columns are inside `x`, and resized the memory; the caller
    // guarantees the instruction set.
    unsafe {
        quantize_keys::<S>(x, head, kv);
        quantize_values::<S>(x, head, kv);
    }
}

/// The largest magnitude of a row; NaN or infinity if a value is not finite.
#[inline(always)]
pub(super) unsafe fn max_abs<S: Simd>(row: *const f32, len: usize) -> f32 {
    // SAFETY: the caller's row has `len` values; it guarantees the instruction set.
    unsafe {
        let mut bits = S::int_splat(0);
        for i in (0..len).step_by(LANES) {
            bits = S::load(row.add(i)).max_abs_bits(bits);
        }
        f32::from_bits(S::int_reduce_max(bits) as u32)
    }
}

/// Replaces the largest magnitudes of rows by the scales of values up to `qmax`, and writes the reciprocals of the scales. The
/// scale is NaN if the magnitude is not finite. Both slices have whole vectors.
#[inline(always)]
pub(super) unsafe fn scales_from_max_abs<S: Simd>(max_abs: &mut [f32], inv_scales: &mut [f32], qmax: f32) {
    // SAFETY: both slices are equally long, whole vectors; the caller guarantees the instruction set.
    unsafe {
        for i in (0..max_abs.len()).step_by(LANES) {
            let value = S::load(max_abs.as_ptr().add(i));
            let bounded = S::splat(MIN_RANGE).max(value);
            S::splat(qmax).div(bounded).store(inv_scales.as_mut_ptr().add(i));
            let scale = value.mul_add(S::splat(0.0), bounded.mul(S::splat(1.0 / qmax)));
            scale.store(max_abs.as_mut_ptr().add(i));
        }
    }
}

#[inline(always)]
unsafe fn quantize_keys<S: Simd>(x: Qkv, head: &HeadSlice, kv: &mut QuantizedKv) {
    let (head_dim, tokens) = (head.head_dim, head.sequence.len());
    // SAFETY: keys have `head_dim` values, whole vectors, and `kv` has room for whole vectors of tokens; the caller guarantees the
    // instruction set.
    unsafe {
        let key = |t: usize| x.k[(head.sequence.start + t) * x.stride + head.first_column..][..head_dim].as_ptr();
        for t in 0..tokens {
            kv.key_scales[t] = max_abs::<S>(key(t), head_dim);
        }
        let whole = tokens.next_multiple_of(LANES);
        scales_from_max_abs::<S>(&mut kv.key_scales[..whole], &mut kv.inv_scales[..whole], KV_QMAX);
        for t in 0..tokens {
            let (key, inv_scale) = (key(t), S::splat(kv.inv_scales[t]));
            let out = kv.keys.as_mut_ptr().add(t / LANES * LANES * head_dim + t % LANES * 4);
            for i in (0..head_dim).step_by(LANES) {
                let mut bytes = [0i8; LANES];
                S::load(key.add(i)).mul(inv_scale).store_i8(bytes.as_mut_ptr());
                for quad in 0..LANES / 4 {
                    let lane = out.add((i / 4 + quad) * 4 * LANES).cast::<[i8; 4]>();
                    lane.write_unaligned(bytes.as_ptr().add(4 * quad).cast::<[i8; 4]>().read());
                }
            }
        }
        // The zero point of queries, stored as they are: subtracting a storage offset of 128 equals adding it modulo 256.
        let zero_point = [((S::QMAX + 1) / 2) as u8 - S::STORAGE_OFFSET; 4];
        for t in (0..tokens).step_by(LANES) {
            let mut sums = S::int_splat(0);
            for d in (0..head_dim).step_by(4) {
                let keys = S::load_i8x4(kv.keys.as_ptr().add(t * head_dim + d * LANES));
                sums = S::dot_u8i8(sums, S::splat_u8x4(zero_point.as_ptr()), keys);
            }
            S::int_store(S::int_sub(S::int_splat(0), sums), kv.key_acc_init.as_mut_ptr().add(t));
        }
    }
}

#[inline(always)]
unsafe fn quantize_values<S: Simd>(x: Qkv, head: &HeadSlice, kv: &mut QuantizedKv) {
    let (head_dim, tokens) = (head.head_dim, head.sequence.len());
    // SAFETY: values have `head_dim` numbers, whole vectors, and `kv` has room for them; the caller guarantees the instruction set.
    unsafe {
        let value = |t: usize| x.v[(head.sequence.start + t) * x.stride + head.first_column..][..head_dim].as_ptr();
        for t in 0..tokens {
            kv.value_scales[t] = max_abs::<S>(value(t), head_dim);
        }
        let whole = tokens.next_multiple_of(LANES);
        scales_from_max_abs::<S>(&mut kv.value_scales[..whole], &mut kv.inv_scales[..whole], KV_QMAX);
        // 0, or NaN if a value is not finite: quantized values would hide it.
        kv.nan_flag = kv.value_scales[..tokens].iter().map(|s| s * 0.0).sum();
        // Tokens of padding have a tiny softmax weight. With the scale 0 they contribute nothing.
        kv.value_scales[tokens..].fill(0.0);
        for first_token in (0..tokens).step_by(4) {
            let out = kv.values.as_mut_ptr().add(first_token * head_dim);
            for d in (0..head_dim).step_by(LANES) {
                let mut scaled = [S::splat(0.0); 4];
                for i in 0..4 {
                    // Padding repeats the last token, with weight 0.
                    let t = (first_token + i).min(tokens - 1);
                    scaled[i] = S::load(value(t).add(d)).mul(S::splat(kv.inv_scales[t]));
                }
                S::store_i8x4(scaled, out.add(4 * d));
                if S::STORAGE_OFFSET != 0 {
                    let sums = kv.value_sums[d..][..LANES].as_mut_ptr();
                    let total = scaled[0].round().add(scaled[1].round()).add(scaled[2].round().add(scaled[3].round()));
                    S::load(sums).add(total).store(sums);
                }
            }
        }
    }
}
