//! Scaled dot-product attention over one sequence.

use super::{LANES, dot_lanes, kernel};

/// `exp(x)` for `x <= 0`, within 2 units in the last place of the correctly rounded value for `x >= -87`, and 0 below.
///
/// Cephes' `expf`: `2^n * p(r)` with `r` in `[-ln 2 / 2, ln 2 / 2]` and a polynomial of degree 6.
#[inline(always)]
pub(crate) fn exp_negative(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.max(-87.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let power = f32::from_bits(((n as i32 + 127) as u32) << 23);
    if x < -87.0 { 0.0 } else { value * power }
}

/// Softmax of a row, in place; a row with NaN becomes NaN.
#[inline(always)]
fn softmax(row: &mut [f32]) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let mut lanes = [0.0; LANES];
    for (i, v) in row.iter_mut().enumerate() {
        *v = if v.is_nan() { f32::NAN } else { exp_negative(*v - largest) };
        lanes[i % LANES] += *v;
    }
    let inverse = 1.0 / super::sum_lanes(lanes);
    for v in row.iter_mut() {
        *v *= inverse;
    }
}

/// Where one head stands in rows of q, k and v.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// Width of a row: heads times head width.
    pub hidden: usize,
    /// Values of a head.
    pub width: usize,
    /// Which head, from 0.
    pub index: usize,
}

impl Head {
    #[inline(always)]
    fn of<'a>(&self, row: &'a [f32]) -> &'a [f32] {
        &row[self.index * self.width..][..self.width]
    }
}

kernel! {
    /// Attention of one head over one sequence: `softmax(q k^T / sqrt(width)) v` (Vaswani et al. 2017, arXiv
    /// 1706.03762), without a mask, since a sequence holds no padding.
    ///
    /// `q`, `k` and `v` are `[T, hidden]`; `out` is `[T, width]`. Only one row of scores exists at a time.
    pub fn attend(q: &[f32], k: &[f32], v: &[f32], head: Head, out: &mut [f32]) {
        let scale = 1.0 / (head.width as f32).sqrt();
        let mut scores = vec![0.0f32; k.len() / head.hidden];
        for (q, out) in q.chunks_exact(head.hidden).zip(out.chunks_exact_mut(head.width)) {
            for (score, k) in scores.iter_mut().zip(k.chunks_exact(head.hidden)) {
                *score = scale * dot_lanes(head.of(q), head.of(k));
            }
            softmax(&mut scores);
            out.fill(0.0);
            for (p, v) in scores.iter().zip(v.chunks_exact(head.hidden)) {
                for (o, v) in out.iter_mut().zip(head.of(v)) {
                    *o += p * v;
                }
            }
        }
    }
}
