//! Attention over a ragged batch, as one operation on tensors.

use super::{Cpu, output, values};
use crate::error::Result;
use crate::kernels::attention::float::{Scratch, attend};
use crate::kernels::attention::{Head, Rows};
use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};

/// Self-attention of every text over itself, in f32: `q`, `k`, `v` are `[T, D]`, text `i` has the rows
/// `starts[i]..starts[i + 1]`; the width of a head must be a multiple of 16.
pub fn attention(cpu: &Cpu, q: &Tensor, k: &Tensor, v: &Tensor, starts: &[usize], heads: usize) -> Result<Tensor> {
    Ok(q.apply_op3_no_bwd(k, v, &Attention { cpu, starts, heads })?)
}

struct Attention<'a> {
    cpu: &'a Cpu,
    starts: &'a [usize],
    heads: usize,
}

impl CustomOp3 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, d) = q_layout.shape().dims2()?;
        let x = Rows { q: values(q, q_layout)?, k: values(k, k_layout)?, v: values(v, v_layout)?, stride: d };
        let texts: Vec<_> = self.starts.windows(2).map(|w| w[0]..w[1]).collect();
        let texts = self.cpu.map(&texts, |text| {
            let (mut out, mut scratch) = (vec![0.0; text.len() * d], Scratch::default());
            for h in 0..self.heads {
                let (at, width) = (h * d / self.heads, d / self.heads);
                let head = Head { sequence: text.clone(), queries: text.clone(), at, width };
                attend(self.cpu.isa, x, &head, &mut scratch, &mut out[at..], d);
            }
            out
        });
        output(texts.concat(), d)
    }
}
