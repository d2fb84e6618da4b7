//! Attention over a ragged batch, as one operation on tensors.

use super::{output, values};
use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use tealight_core::Result;
use tealight_kernels::CpuContext;
use tealight_kernels::attention::float::{SdpaScratch, sdpa};
use tealight_kernels::attention::{HeadSlice, Qkv};

/// Self-attention of every text over itself, in f32: `q`, `k`, `v` are `[T, D]`, text `i` has the rows
/// `starts[i]..starts[i + 1]`; the width of a head must be a multiple of 16.
///
/// # Errors
/// Shapes, heads or starts do not fit each other.
pub fn attention(
    cpu: &CpuContext,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    starts: &[usize],
    heads: usize,
) -> Result<Tensor> {
    Ok(q.apply_op3_no_bwd(k, v, &Attention { cpu, starts, heads })?)
}

struct Attention<'a> {
    cpu: &'a CpuContext,
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
        let (rows, d) = q_layout.shape().dims2()?;
        let shapes = [q_layout.dims(), k_layout.dims(), v_layout.dims()];
        let width = d.checked_div(self.heads).unwrap_or(0);
        let ordered = self.starts.first() == Some(&0) && self.starts.windows(2).all(|w| w[0] < w[1]);
        if shapes[1..] != [shapes[0]; 2] || width * self.heads != d || width % 16 != 0 || width == 0 {
            candle_core::bail!("attention of {} heads over tensors {shapes:?}", self.heads);
        }
        if !ordered || self.starts.last() != Some(&rows) {
            candle_core::bail!("texts that start at {:?} are not {rows} rows", self.starts);
        }
        let x = Qkv { q: values(q, q_layout)?, k: values(k, k_layout)?, v: values(v, v_layout)?, stride: d };
        let texts: Vec<_> = self.starts.windows(2).map(|w| w[0]..w[1]).collect();
        let texts = self.cpu.par_map(&texts, |text| {
            let (mut out, mut scratch) = (vec![0.0; text.len() * d], SdpaScratch::default());
            for h in 0..self.heads {
                let head =
                    HeadSlice { sequence: text.clone(), queries: text.clone(), offset: h * width, head_dim: width };
                sdpa(self.cpu.isa, x, &head, &mut scratch, &mut out[h * width..], d);
            }
            out
        });
        output(texts.concat(), d)
    }
}
