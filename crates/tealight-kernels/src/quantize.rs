//! Quantization of activations: rows of float32 become rows of 8-bit values, the left-hand side of a product.
//!
//! Values along K are quantized in groups, each with its own scale. The layout of the weights decides which scheme is used:
//! int8 weights take unsigned values with a zero point, `x / smooth = scale (u - zero_point)`, and 4-bit weights take signed
//! values without one, `x = scale q`.
#![allow(clippy::needless_range_loop)] // Indices are rows of a tile.

use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::{LANES, Simd};

/// The memory for quantized rows is padded to a multiple of this number of rows, because AMX multiplies blocks of 32 rows.
pub(crate) const ROW_ALIGN: usize = 32;
/// A group whose range of values is smaller is quantized with this range, so that no scale is subnormal.
pub const MIN_RANGE: f32 = 1e-30;
/// The largest magnitude of a signed value.
const SYMMETRIC_QMAX: f32 = 127.0;

/// How float values are mapped to 8 bits.
#[derive(Debug, Clone, Copy)]
pub enum QuantScheme<'a> {
    /// Unsigned values with a zero point, for int8 weights. They range from 0 to 255, or to 127 on AVX2 without VNNI.
    Asymmetric {
        /// `[K]`: factors that values are multiplied by first, `1 / smooth`.
        inv_smooth: &'a [f32],
    },
    /// Signed values from -127 to 127 without a zero point, for 4-bit weights.
    Symmetric,
}

/// How rows are quantized for one matrix of weights.
#[derive(Debug, Clone, Copy)]
pub struct QuantLayout<'a> {
    /// Values of a row, a multiple of 16.
    pub k: usize,
    /// Bytes of a quantized row: K values, then padding, which stands for the value 0.
    pub padded_k: usize,
    /// Values along K that share a scale, a multiple of 16; the last group may be shorter.
    pub group_size: usize,
    /// How values are mapped to 8 bits.
    pub scheme: QuantScheme<'a>,
}

impl QuantLayout<'_> {
    fn groups(&self) -> usize {
        self.padded_k.div_ceil(self.group_size)
    }
}

/// Factors that turn one row's integer sum of a group into its contribution to the product, by the formula in
/// [`gemm`](crate::gemm).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RowScale {
    pub scale: f32,
    /// Multiplies the offset of the weights of the group ([`RhsFormat::scale_and_offset`](crate::gemm::RhsFormat)):
    /// `-scale * zero_point`, or `scale` times the sum of the values if they are signed.
    pub offset_factor: f32,
}

/// How bytes represent quantized values. It depends on the scheme and on the instruction set that quantized them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ValueEncoding {
    #[default]
    Signed,
    Unsigned {
        /// Maximum quantized value: 255, or 127 on AVX2 without VNNI.
        qmax: i32,
        /// Added to each value in memory, modulo 256.
        storage_offset: u8,
    },
}

impl ValueEncoding {
    fn storage_offset(self) -> u8 {
        match self {
            Self::Signed => 0,
            Self::Unsigned { storage_offset, .. } => storage_offset,
        }
    }
}

/// Quantized rows, the left-hand side of [`int8::gemm`](super::int8::gemm) and [`int4::gemm`](super::int4::gemm). Reused
/// between calls, so that a forward pass allocates nothing.
#[derive(Debug, Default)]
pub struct QuantizedRows {
    /// `[rows rounded up to ROW_ALIGN, padded_k]`, row-major.
    pub(crate) bytes: Vec<u8>,
    /// `[rows, groups]`.
    pub(crate) row_scales: Vec<RowScale>,
    pub(crate) padded_k: usize,
    pub(crate) groups: usize,
    pub(crate) encoding: ValueEncoding,
    rows: usize,
}

impl QuantizedRows {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A quantized value as a byte: from 0 to 255 with [`QuantScheme::Asymmetric`], the bits of an i8 with
    /// [`QuantScheme::Symmetric`].
    ///
    /// # Panics
    /// If there is no such row or column.
    pub fn quantized_byte(&self, row: usize, column: usize) -> u8 {
        self.bytes[row * self.padded_k + column].wrapping_sub(self.encoding.storage_offset())
    }

    /// The scale of a group of a row; NaN if a value of the group is not finite.
    ///
    /// # Panics
    /// If there is no such row or group.
    pub fn scale(&self, row: usize, group: usize) -> f32 {
        self.row_scales[row * self.groups + group].scale
    }

    /// Makes room for `rows` rows, which [`QuantizedRows::quantize_groups`] fills afterwards.
    pub fn resize(&mut self, rows: usize, layout: &QuantLayout) {
        (self.rows, self.padded_k, self.groups) = (rows, layout.padded_k, layout.groups());
        // Products read whole blocks of rows and drop what they compute from bytes past the last row.
        self.bytes.resize(rows.next_multiple_of(ROW_ALIGN) * layout.padded_k, 0);
        self.row_scales.resize(rows * self.groups, RowScale::default());
    }

    /// Quantizes some groups of all rows. `values` is `[rows, count]`, row-major: `count` columns of each row, the first of which is
    /// the first of group `first_group`. The result of a row depends on no other row.
    ///
    /// A group that contains NaN or an infinity, or whose sum overflows, gets the scale NaN, so that products with it are NaN.
    ///
    /// # Panics
    /// If [`QuantizedRows::resize`] was called for another layout, or the `count` columns are not whole groups inside K.
    pub fn quantize_groups(&mut self, isa: Isa, first_group: usize, values: &[f32], layout: &QuantLayout) {
        let count = values.len().checked_div(self.rows).unwrap_or(0);
        let start = first_group * layout.group_size;
        assert_eq!((self.padded_k, self.groups), (layout.padded_k, layout.groups()));
        assert_eq!(values.len(), count * self.rows);
        assert!(count.is_multiple_of(LANES) && layout.k.is_multiple_of(LANES) && start + count <= layout.k);
        assert!(count.is_multiple_of(layout.group_size) || start + count == layout.k, "whole groups");
        if let QuantScheme::Asymmetric { inv_smooth } = layout.scheme {
            assert_eq!(inv_smooth.len(), layout.k);
        }
        let x = Columns { values, count, first_group, start };
        let out = self;
        dispatch!(isa, quantize_columns(x: Columns, layout: &QuantLayout, out: &mut QuantizedRows));
    }

    /// Quantizes whole rows `[rows, K]`. The result of a row depends on no other row.
    ///
    /// A group that contains NaN or an infinity, or whose sum overflows, gets the scale NaN, so that products with it are NaN.
    ///
    /// # Panics
    /// If the length of `rows` is not a multiple of K.
    pub fn quantize(&mut self, isa: Isa, rows: &[f32], layout: &QuantLayout) {
        assert!(rows.len().is_multiple_of(layout.k), "rows of {} values", layout.k);
        self.resize(rows.len() / layout.k, layout);
        self.quantize_groups(isa, 0, rows, layout);
    }
}

/// Some columns of all rows.
#[derive(Clone, Copy)]
struct Columns<'a> {
    /// `[rows, count]`, row-major.
    values: &'a [f32],
    count: usize,
    first_group: usize,
    /// Index of the first of these columns in the matrix.
    start: usize,
}

/// Rows that are quantized together, so that their reductions overlap.
const INTERLEAVED_ROWS: usize = 4;

#[inline(always)]
unsafe fn quantize_columns<S: Simd>(x: Columns, layout: &QuantLayout, out: &mut QuantizedRows) {
    // SAFETY: `quantize_groups` checked the sizes; the caller guarantees the instruction set.
    unsafe {
        match layout.scheme {
            QuantScheme::Asymmetric { inv_smooth } => {
                out.encoding = ValueEncoding::Unsigned { qmax: S::QMAX, storage_offset: S::STORAGE_OFFSET };
                quantize_rows::<S, _>(x, layout, Asymmetric(inv_smooth.as_ptr()), out);
            }
            QuantScheme::Symmetric => {
                out.encoding = ValueEncoding::Signed;
                quantize_rows::<S, _>(x, layout, Symmetric, out);
            }
        }
    }
}

#[inline(always)]
unsafe fn quantize_rows<S: Simd, Q: Quantizer>(
    x: Columns,
    layout: &QuantLayout,
    quantizer: Q,
    out: &mut QuantizedRows,
) {
    let (rows, padding) = (out.rows, out.encoding.storage_offset());
    for row in (0..rows).step_by(INTERLEAVED_ROWS) {
        let count = INTERLEAVED_ROWS.min(rows - row);
        for start in (0..x.count).step_by(layout.group_size) {
            // SAFETY: the caller's.
            unsafe { quantize_tile::<S, Q>(x, layout, quantizer, row, count, start, out) };
        }
        for r in row..row + count {
            out.bytes[r * layout.padded_k..(r + 1) * layout.padded_k][layout.k..].fill(padding);
        }
    }
}

/// Quantizes one group, which begins at column `start` of `x`, of `count` rows.
#[inline(always)]
unsafe fn quantize_tile<S: Simd, Q: Quantizer>(
    x: Columns,
    layout: &QuantLayout,
    quantizer: Q,
    row: usize,
    count: usize,
    start: usize,
    out: &mut QuantizedRows,
) {
    let columns = start..(start + layout.group_size).min(x.count);
    let (column, len) = (x.start + start, columns.len());
    let group = x.first_group + start / layout.group_size;
    let values = |r: usize| x.values[(row + r) * x.count..][columns.clone()].as_ptr();
    let mut params = [QuantParams::default(); INTERLEAVED_ROWS];
    // SAFETY: there are as many values, factors and bytes as columns, a multiple of the lanes; the caller guarantees the
    // instruction set.
    unsafe {
        for r in 0..count {
            params[r] = quantizer.params::<S>(values(r), column, len);
        }
        for r in 0..count {
            let bytes = out.bytes[(row + r) * layout.padded_k + column..][..len].as_mut_ptr();
            let offset_factor = quantizer.store::<S>(values(r), column, len, params[r], bytes);
            out.row_scales[(row + r) * out.groups + group] = RowScale { scale: params[r].scale, offset_factor };
        }
    }
}

/// How one group of one row is quantized.
#[derive(Clone, Copy, Default)]
struct QuantParams {
    /// NaN if a value is not finite.
    scale: f32,
    inv_scale: f32,
    zero_point: f32,
}

/// A scheme as two passes over the values of a group: the first finds their range, the second rounds them.
///
/// The caller guarantees that there are `count` values at `x` and `count` bytes at `out`; that they are whole vectors and begin at
/// column `column` of the matrix; and that the CPU has the instruction set.
trait Quantizer: Copy {
    unsafe fn params<S: Simd>(self, x: *const f32, column: usize, count: usize) -> QuantParams;
    /// Writes the quantized values and returns [`RowScale::offset_factor`].
    unsafe fn store<S: Simd>(
        self,
        x: *const f32,
        column: usize,
        count: usize,
        params: QuantParams,
        out: *mut u8,
    ) -> f32;
}

/// [`QuantScheme::Asymmetric`] with its factors `[K]`.
#[derive(Clone, Copy)]
struct Asymmetric(*const f32);

impl Quantizer for Asymmetric {
    #[inline(always)]
    unsafe fn params<S: Simd>(self, x: *const f32, column: usize, count: usize) -> QuantParams {
        // SAFETY: the caller's; there are factors for all columns.
        unsafe {
            let inv_smooth = self.0.add(column);
            let zero = S::splat(0.0);
            let (mut low, mut high, mut sum) = (zero, zero, zero);
            for i in (0..count).step_by(LANES) {
                let v = S::load(x.add(i)).mul(S::load(inv_smooth.add(i)));
                low = v.min(low);
                high = v.max(high);
                sum = sum.add(v);
            }
            let (low, high) = (-zero.sub(low).reduce_max(), high.reduce_max());
            let (range, qmax) = ((high - low).max(MIN_RANGE), S::QMAX as f32);
            let inv_scale = qmax / range;
            // 0, or NaN if a value is not finite: minimum and maximum ignore NaN.
            let nan_flag = sum.reduce_sum() * 0.0;
            QuantParams {
                scale: range * (1.0 / qmax) + nan_flag,
                inv_scale,
                zero_point: (-low * inv_scale).round_ties_even(),
            }
        }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(
        self,
        x: *const f32,
        column: usize,
        count: usize,
        params: QuantParams,
        out: *mut u8,
    ) -> f32 {
        // SAFETY: the caller's; there are factors for all columns.
        unsafe {
            let inv_smooth = self.0.add(column);
            let (inv_scale, zero_point) = (S::splat(params.inv_scale), S::splat(params.zero_point));
            let (lowest, highest) = (S::splat(0.0), S::splat(S::QMAX as f32));
            for i in (0..count).step_by(LANES) {
                let v = S::load(x.add(i)).mul(S::load(inv_smooth.add(i))).mul_add(inv_scale, zero_point);
                v.max(lowest).min(highest).store_u8(out.add(i));
            }
        }
        -params.scale * params.zero_point
    }
}

/// [`QuantScheme::Symmetric`].
#[derive(Clone, Copy)]
struct Symmetric;

impl Quantizer for Symmetric {
    #[inline(always)]
    unsafe fn params<S: Simd>(self, x: *const f32, _: usize, count: usize) -> QuantParams {
        // SAFETY: the caller's.
        unsafe {
            let mut bits = S::int_splat(0);
            for i in (0..count).step_by(LANES) {
                bits = S::load(x.add(i)).max_abs_bits(bits);
            }
            // NaN and infinities have larger bits than all finite values, so that they stay visible.
            let max_abs = f32::from_bits(S::int_reduce_max(bits) as u32);
            let range = max_abs.max(MIN_RANGE);
            QuantParams {
                scale: range * (1.0 / SYMMETRIC_QMAX) + max_abs * 0.0,
                inv_scale: SYMMETRIC_QMAX / range,
                zero_point: 0.0,
            }
        }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(self, x: *const f32, _: usize, count: usize, params: QuantParams, out: *mut u8) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            let inv_scale = S::splat(params.inv_scale);
            let mut total = S::splat(0.0);
            for i in (0..count).step_by(LANES) {
                let v = S::load(x.add(i)).mul(inv_scale).round();
                total = total.add(v);
                v.store_i8(out.add(i).cast());
            }
            params.scale * total.reduce_sum()
        }
    }
}
