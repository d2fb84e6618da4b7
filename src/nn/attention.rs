//! Attention over a ragged batch.

use super::{Cpu, rows, with_values};
use crate::error::Result;
use crate::kernels::attention::{Head, attend};
use candle_core::Tensor;

/// Self-attention of every text over itself: `q`, `k`, `v` are `[T, D]`, text `i` has the rows `starts[i]..starts[i + 1]`.
pub fn attention(cpu: &Cpu, q: &Tensor, k: &Tensor, v: &Tensor, starts: &[usize], heads: usize) -> Result<Tensor> {
    let hidden = q.dim(1)?;
    with_values(q, |q| {
        with_values(k, |k| {
            with_values(v, |v| {
                let width = hidden / heads;
                let work: Vec<_> =
                    starts.windows(2).flat_map(|w| (0..heads).map(|index| (w[0]..w[1], index))).collect();
                let outs = cpu.map(&work, |(rows, index)| {
                    let of = |x| -> &[f32] { &<[f32]>::as_ref(x)[rows.start * hidden..rows.end * hidden] };
                    let head = Head { hidden, width, index: *index };
                    let mut out = vec![0.0; rows.len() * width];
                    attend(cpu.isa, of(q), of(k), of(v), head, &mut out);
                    out
                });
                rows(interleave(&work, &outs, hidden, width, q.len()), hidden)
            })
        })
    })
}

/// Puts the outputs of heads, each `[T of its text, width]`, side by side into `[T, D]`.
fn interleave(
    work: &[(std::ops::Range<usize>, usize)],
    outs: &[Vec<f32>],
    hidden: usize,
    width: usize,
    len: usize,
) -> Vec<f32> {
    let mut all = vec![0.0; len];
    for ((rows, index), out) in work.iter().zip(outs) {
        for (row, out) in rows.clone().zip(out.chunks_exact(width)) {
            all[row * hidden + index * width..][..width].copy_from_slice(out);
        }
    }
    all
}
