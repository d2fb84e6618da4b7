//! Rows of activations as 8-bit codes, quantised for one matrix.
//!
//! A group of values along K has one step `s` and, for int8 weights, one zero point `z`: `x / smooth = s (u - z)` with codes
//! `u` from 0 to 255 (to 127 on AVX2). For int4 weights codes are signed and symmetric, `x = s q`, with `q` in -127..=127.

#![allow(clippy::needless_range_loop)] // Indices are rows that are worked on together.

use super::simd::{LANES, Simd};
use super::{Isa, dispatch};

/// Rows of a block that a product computes at once: memory for codes is whole blocks.
pub(crate) const ROW_BLOCK: usize = 32;
/// The range of a group counts as this where it is smaller, so that no step is denormal.
pub const SMALLEST_RANGE: f32 = 1e-30;

/// What codes are made for.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// Values of a row, a multiple of 16.
    pub k: usize,
    /// Codes of a row, K with zeros behind it.
    pub width: usize,
    /// Values of a group, a multiple of 16; the last may be shorter.
    pub group: usize,
    /// `[K]`: what values are multiplied by first, for codes with a zero point; `None` makes signed ones.
    pub inverse: Option<&'a [f32]>,
}

impl Form<'_> {
    fn groups(&self) -> usize {
        self.width.div_ceil(self.group)
    }
}

/// What turns the integer sum of a group into its part of a product, for one row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Terms {
    /// `s`.
    pub step: f32,
    /// What the group's constant of the weights is multiplied by: `-s z`, or for signed codes `s` times their sum.
    pub offset: f32,
}

/// Rows of codes. Kept between calls, so that nothing is allocated on the way.
#[derive(Debug, Default)]
pub struct Codes {
    /// `[rows in whole blocks, width]`.
    pub(crate) bytes: Vec<u8>,
    /// `[rows, groups]`.
    pub(crate) terms: Vec<Terms>,
    pub(crate) width: usize,
    pub(crate) groups: usize,
    /// The highest code, and what is added to codes in memory, by the set that quantised; 0 levels for signed codes.
    pub(crate) levels: i32,
    pub(crate) bias: u8,
    rows: usize,
}

impl Codes {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The code of a row and column without the set's bias, for int8 weights.
    pub fn code(&self, row: usize, column: usize) -> u8 {
        self.bytes[row * self.width + column].wrapping_sub(self.bias)
    }

    /// The step of a row and group.
    pub fn step(&self, row: usize, group: usize) -> f32 {
        self.terms[row * self.groups + group].step
    }

    /// Makes room for `rows` rows, to be filled group by group.
    pub fn begin(&mut self, rows: usize, form: &Form) {
        (self.rows, self.width, self.groups) = (rows, form.width, form.groups());
        // Codes behind the last row are multiplied and thrown away; any value will do.
        self.bytes.resize(rows.next_multiple_of(ROW_BLOCK) * form.width, 0);
        self.terms.resize(rows * self.groups, Terms::default());
    }

    /// Quantises the groups `first..` of all rows, as far as `part [rows, columns]` has them; a row depends on no other.
    ///
    /// A group with a value that is not finite, or whose sum is not, gets the step NaN: what was wrong stays visible.
    pub fn fill(&mut self, isa: Isa, first: usize, part: &[f32], form: &Form) {
        let columns = part.len().checked_div(self.rows).unwrap_or(0);
        let start = first * form.group;
        assert_eq!((self.width, self.groups), (form.width, form.groups()));
        assert_eq!(part.len(), columns * self.rows);
        assert!(columns.is_multiple_of(LANES) && form.k.is_multiple_of(LANES) && start + columns <= form.k);
        assert!(columns.is_multiple_of(form.group) || start + columns == form.k, "whole groups");
        assert!(form.inverse.is_none_or(|i| i.len() == form.k));
        let x = Part { values: part, columns, first, start };
        let codes = self;
        dispatch!(isa, fill(x: Part, form: &Form, codes: &mut Codes));
    }

    /// Quantises whole rows of K values.
    pub(crate) fn quantise(&mut self, isa: Isa, rows: &[f32], form: &Form) {
        assert!(rows.len().is_multiple_of(form.k), "rows of {} values", form.k);
        self.begin(rows.len() / form.k, form);
        self.fill(isa, 0, rows, form);
    }
}

/// Some columns of all rows.
#[derive(Clone, Copy)]
struct Part<'a> {
    values: &'a [f32],
    columns: usize,
    first: usize,
    start: usize,
}

/// Rows whose reductions wait together.
const TOGETHER: usize = 4;

#[inline(always)]
unsafe fn fill<S: Simd>(x: Part, form: &Form, out: &mut Codes) {
    let rows = out.rows;
    (out.levels, out.bias) = if form.inverse.is_none() { (0, 0) } else { (S::LEVELS, S::BIAS) };
    let mut row = 0;
    while row < rows {
        let count = TOGETHER.min(rows - row);
        for start in (0..x.columns).step_by(form.group) {
            let columns = start..(start + form.group).min(x.columns);
            let at = x.start + start;
            let group = x.first + start / form.group;
            let inverse = form.inverse.map(|i| i[at..][..columns.len()].as_ptr());
            let values = |r: usize| x.values[(row + r) * x.columns..][columns.clone()].as_ptr();
            let mut steps = [Step::default(); TOGETHER];
            // SAFETY: values, inverse and codes are as many as the columns, a multiple of the lanes; the caller vouches for
            // the instruction set.
            unsafe {
                for r in 0..count {
                    steps[r] = match inverse {
                        Some(inverse) => asymmetric::<S>(values(r), inverse, columns.len()),
                        None => symmetric::<S>(values(r), columns.len()),
                    };
                }
                for r in 0..count {
                    let codes = out.bytes[(row + r) * form.width + at..][..columns.len()].as_mut_ptr();
                    let Step { step, per_step, zero } = steps[r];
                    let offset = match inverse {
                        Some(inverse) => {
                            with_zero::<S>(values(r), inverse, columns.len(), steps[r], codes);
                            -step * zero
                        }
                        None => step * without_zero::<S>(values(r), columns.len(), per_step, codes),
                    };
                    out.terms[(row + r) * out.groups + group] = Terms { step, offset };
                }
            }
        }
        for r in row..row + count {
            out.bytes[r * form.width..(r + 1) * form.width][form.k..].fill(out.bias);
        }
        row += count;
    }
}

/// How a group is quantised.
#[derive(Clone, Copy, Default)]
struct Step {
    /// NaN where a value was not finite.
    step: f32,
    per_step: f32,
    zero: f32,
}

/// The step and the zero point of `count` values times `inverse`, whole vectors.
#[inline(always)]
unsafe fn asymmetric<S: Simd>(x: *const f32, inverse: *const f32, count: usize) -> Step {
    // SAFETY: the caller has so many of both; it vouches for the instruction set.
    unsafe {
        let nothing = S::splat(0.0);
        let (mut low, mut high, mut sum) = (nothing, nothing, nothing);
        for i in (0..count).step_by(LANES) {
            let v = S::load(x.add(i)).mul(S::load(inverse.add(i)));
            low = v.min(low);
            high = v.max(high);
            sum = sum.add(v);
        }
        let (low, high) = (-nothing.sub(low).largest(), high.largest());
        let (range, levels) = ((high - low).max(SMALLEST_RANGE), S::LEVELS as f32);
        let per_step = levels / range;
        // Zero, or NaN where a value was not finite, which the extremes would hide.
        let poison = sum.sum() * 0.0;
        Step { step: range * (1.0 / levels) + poison, per_step, zero: (-low * per_step).round_ties_even() }
    }
}

/// Codes with a zero point.
#[inline(always)]
unsafe fn with_zero<S: Simd>(x: *const f32, inverse: *const f32, count: usize, step: Step, codes: *mut u8) {
    // SAFETY: the caller has so many of all three; it vouches for the instruction set.
    unsafe {
        let (scale, zero) = (S::splat(step.per_step), S::splat(step.zero));
        let (lowest, highest) = (S::splat(0.0), S::splat(S::LEVELS as f32));
        for i in (0..count).step_by(LANES) {
            let code = S::load(x.add(i)).mul(S::load(inverse.add(i))).mul_add(scale, zero);
            code.max(lowest).min(highest).store_codes(codes.add(i));
        }
    }
}

/// The highest signed code.
const SIGNED_LEVELS: f32 = 127.0;

/// The step of `count` values, whole vectors.
#[inline(always)]
unsafe fn symmetric<S: Simd>(x: *const f32, count: usize) -> Step {
    // SAFETY: the caller has so many; it vouches for the instruction set.
    unsafe {
        let mut largest = S::int_splat(0);
        for i in (0..count).step_by(LANES) {
            largest = S::load(x.add(i)).magnitude(largest);
        }
        let largest = f32::from_bits(S::int_largest(largest) as u32);
        let range = largest.max(SMALLEST_RANGE);
        Step { step: range * (1.0 / SIGNED_LEVELS) + largest * 0.0, per_step: SIGNED_LEVELS / range, zero: 0.0 }
    }
}

/// Signed codes; returns their sum.
#[inline(always)]
unsafe fn without_zero<S: Simd>(x: *const f32, count: usize, per_step: f32, codes: *mut u8) -> f32 {
    // SAFETY: the caller has so many of both; it vouches for the instruction set.
    unsafe {
        let scale = S::splat(per_step);
        let mut total = S::splat(0.0);
        for i in (0..count).step_by(LANES) {
            let code = S::load(x.add(i)).mul(scale).rounded();
            total = total.add(code);
            code.store_signed(codes.add(i).cast());
        }
        total.sum()
    }
}
