//! Self-attention over a ragged batch in f32, as an operation on candle tensors.

use super::tensor::{output, values};
use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use tealight_core::Result;
use tealight_kernels::CpuContext;
use tealight_kernels::attention::float::{SdpaScratch, sdpa};
use tealight_kernels::attention::{HeadSlice, Qkv};

/// Self-attention within each text: `q`, `k` and `v` are `[T, D]`, and text `i` has the rows `cu_seqlens[i]..cu_seqlens[i + 1]`.
/// The dimension of a head must be a multiple of 16.
///
/// # Errors
/// The shapes, the number of heads and `cu_seqlens` do not fit each other.
pub fn attention(
    cpu: &CpuContext,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    cu_seqlens: &[usize],
    heads: usize,
) -> Result<Tensor> {
    Ok(q.apply_op3_no_bwd(k, v, &AttentionOp { cpu, cu_seqlens, heads })?)
}

struct AttentionOp<'a> {
    cpu: &'a CpuContext,
    cu_seqlens: &'a [usize],
    heads: usize,
}

impl CustomOp3 for AttentionOp<'_> {
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
        let head_dim = d.checked_div(self.heads).unwrap_or(0);
        let is_ascending = self.cu_seqlens.first() == Some(&0) && self.cu_seqlens.windows(2).all(|w| w[0] < w[1]);
        if shapes[1..] != [shapes[0]; 2] || head_dim * self.heads != d || head_dim % 16 != 0 || head_dim == 0 {
            candle_core::bail!("attention with {} heads got tensors {shapes:?}", self.heads);
        }
        if !is_ascending || self.cu_seqlens.last() != Some(&rows) {
            candle_core::bail!("cu_seqlens {:?} do not describe {rows} rows", self.cu_seqlens);
        }
        let x = Qkv { q: values(q, q_layout)?, k: values(k, k_layout)?, v: values(v, v_layout)?, stride: d };
        let texts: Vec<_> = self.cu_seqlens.windows(2).map(|w| w[0]..w[1]).collect();
        let texts = self.cpu.par_map(&texts, |text| {
            let (mut out, mut scratch) = (vec![0.0; text.len() * d], SdpaScratch::default());
            for h in 0..self.heads {
                let head =
                    HeadSlice { sequence: text.clone(), queries: text.clone(), first_column: h * head_dim, head_dim };
                sdpa(self.cpu.isa, x, &head, &mut scratch, &mut out[h * head_dim..], d);
            }
            out
        });
        output(texts.concat(), d)
    }
}
