//! Attention over a ragged batch, as one operation on tensors.

use super::{Cpu, rows, with_values};
use crate::error::Result;
use crate::kernels::attention::{Head, Rows, Scratch, attend};
use candle_core::Tensor;

/// Self-attention of every text over itself: `q`, `k`, `v` are `[T, D]`, text `i` has the rows `starts[i]..starts[i + 1]`;
/// the width of a head must be a multiple of 16.
pub fn attention(cpu: &Cpu, q: &Tensor, k: &Tensor, v: &Tensor, starts: &[usize], heads: usize) -> Result<Tensor> {
    let d = q.dim(1)?;
    with_values(q, |q| {
        with_values(k, |k| {
            with_values(v, |v| {
                let x = Rows { q, k, v, stride: d };
                let texts: Vec<_> = starts.windows(2).map(|w| w[0]..w[1]).collect();
                let texts = cpu.map(&texts, |text| {
                    let (mut out, mut scratch) = (vec![0.0; text.len() * d], Scratch::default());
                    for h in 0..heads {
                        let (at, width) = (h * d / heads, d / heads);
                        let head = Head { sequence: text.clone(), queries: text.clone(), at, width };
                        attend(cpu.isa, x, &head, &mut scratch, &mut out[at..], d);
                    }
                    out
                });
                rows(texts.concat(), d)
            })
        })
    })
}
