//! Reads the layers of an encoder: used in place if the file is packed, otherwise padded and packed.
//!
//! Tensors have llama.cpp's names; the families translate those of Hugging Face.

use super::attention::{Attention, QkNorms};
use super::encoder::EncoderLayer;
use super::feed_forward::{FeedForward, FeedForwardBlock, MixtureOfExperts};
use super::linear_kind::LinearKind;
use super::norm::{BlockNorms, RowNorm};
use super::padding::{Matrix, PaddedDim};
use super::position_bias::{AttentionPattern, Disentangled, DistanceBias, PositionBiasWeights, alibi_slopes};
use super::rope_table::RopeTable;
use crate::formats::weights::Weights;
use crate::layers::LayerNorm;
use crate::spec::{EncoderSpec, Experts, NormKind, NormPlacement, PositionBias, QkNorm};
use std::sync::Arc;
use tealight_core::{Error, Result};
use tealight_kernels::int8::PackedRhs;
use tealight_kernels::{Isa, rowwise};

/// Weights along K that share a scale if a matrix is packed while the model is loaded. Groups are small because SmoothQuant
/// scales the channels only when a file is packed.
const LOAD_GROUP: usize = 64;

/// Reads the weights of an encoder.
#[derive(Clone, Copy)]
pub(crate) struct LayerLoader<'a> {
    pub spec: &'a EncoderSpec,
    pub weights: &'a Weights,
}

/// What layers share.
#[derive(Debug)]
pub(super) struct SharedWeights {
    isa: Isa,
    /// One table for each rotation, in the order of the first layers that have it.
    ropes: Vec<Arc<RopeTable>>,
    /// Relative buckets, if the network has them.
    distance_bias: Option<Arc<DistanceBias>>,
    /// Embeddings of distances, `[2 * span, D]`.
    distances: Vec<f32>,
}

impl LayerLoader<'_> {
    /// A norm of `len` values.
    pub(crate) fn norm(&self, name: &str, len: usize) -> Result<RowNorm> {
        self.norm_of_kind(name, len, self.spec.norm.kind)
    }

    fn norm_of_kind(&self, name: &str, len: usize, kind: NormKind) -> Result<RowNorm> {
        let eps = self.spec.norm.eps;
        let mut weight = self.weights.floats(&format!("{name}.weight"), &[len])?;
        if kind == NormKind::RmsNormPlusOne {
            weight.iter_mut().for_each(|w| *w += 1.0);
        }
        Ok(match kind {
            NormKind::RmsNorm | NormKind::RmsNormPlusOne => RowNorm::RmsNorm { weight, eps },
            NormKind::LayerNormNoBias => RowNorm::LayerNorm(LayerNorm { bias: vec![0.0; len], weight, eps }),
            NormKind::LayerNorm => {
                let bias = self.weights.floats(&format!("{name}.bias"), &[len])?;
                RowNorm::LayerNorm(LayerNorm { weight, bias, eps })
            }
        })
    }

    fn linear(&self, name: &str, has_bias: bool, rows: usize, columns: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let weight = self.weights.floats(&format!("{name}.weight"), &[rows, columns])?;
        let bias_name = format!("{name}.bias");
        if !has_bias && self.weights.contains(&bias_name) {
            return Err(Error::invalid_model(format!(
                "tensor {bias_name:?} is not expected: the configuration describes a network without this bias"
            )));
        }
        let bias = if has_bias { self.weights.floats(&bias_name, &[rows])? } else { vec![0.0; rows] };
        Ok((weight, bias))
    }

    /// Linear layers stacked along their rows.
    fn stacked(&self, names: &[(String, usize)], has_bias: bool, columns: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let (mut weight, mut bias) = (vec![], vec![]);
        for (name, rows) in names {
            let (w, b) = self.linear(name, has_bias, *rows, columns)?;
            weight.extend(w);
            bias.extend(b);
        }
        Ok((weight, bias))
    }

    fn has_weight(&self, name: &str) -> bool {
        self.weights.contains(&format!("{name}.weight"))
    }

    /// Rows and columns of a product.
    pub(crate) fn shape(&self, kind: LinearKind) -> (PaddedDim, PaddedDim) {
        let (a, d) = (&self.spec.attention, PaddedDim::one(self.spec.hidden_size));
        let inner = self.spec.feed_forward.intermediate_size;
        match kind {
            LinearKind::Qkv => (PaddedDim { parts: a.heads + 2 * a.kv_heads, len: a.head_dim }, d),
            LinearKind::AttentionOutput => (d, PaddedDim { parts: a.heads, len: a.head_dim }),
            LinearKind::Up => (PaddedDim { parts: if self.spec.feed_forward.gated { 2 } else { 1 }, len: inner }, d),
            LinearKind::Down => (d, PaddedDim::one(inner)),
        }
    }

    /// The name of a product in a packed file; `expert` is that of a mixture of experts.
    pub(crate) fn packed_name(layer: usize, kind: LinearKind, expert: Option<usize>) -> String {
        let name = match kind {
            LinearKind::Qkv => "attn_qkv",
            LinearKind::AttentionOutput => "attn_output",
            LinearKind::Up => "ffn_up",
            LinearKind::Down => "ffn_down",
        };
        match expert {
            None => format!("blk.{layer}.{name}"),
            Some(expert) => format!("blk.{layer}.{name}.{expert}"),
        }
    }

    /// Whether a tensor of a layer belongs to a product, which packed files store in the layout of the kernels.
    pub(crate) fn is_part_of_product(name: &str) -> bool {
        let parts = [
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_qkv",
            "attn_output",
            "ffn_up",
            "ffn_gate",
            "ffn_gate_up",
            "ffn_up_gate",
            "ffn_down",
            "ffn_up_exps",
            "ffn_down_exps",
        ];
        name.rsplit_once('.').is_some_and(|(module, _)| parts.contains(&module))
    }

    /// The experts of a product, or one `None` if there is no mixture.
    pub(crate) fn experts(&self, layer: usize, kind: LinearKind) -> Vec<Option<usize>> {
        match (kind, self.spec.layers[layer].experts) {
            (LinearKind::Up | LinearKind::Down, Some(Experts { count, .. })) => (0..count).map(Some).collect(),
            _ => vec![None],
        }
    }

    /// A product in f32, without padding.
    pub(crate) fn matrix(&self, layer: usize, kind: LinearKind, expert: Option<usize>) -> Result<Matrix> {
        let (rows, columns) = self.shape(kind);
        if self.weights.packed(&Self::packed_name(layer, kind, expert)).is_some() {
            return Ok(Matrix::unpack(&self.packed(layer, kind, expert)?, rows, columns));
        }
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (a, f) = (&self.spec.attention, &self.spec.feed_forward);
        let k = columns.size();
        let (weight, bias) = match (kind, expert) {
            (LinearKind::Qkv, _) if self.has_weight(&name("attn_qkv")) => {
                self.linear(&name("attn_qkv"), a.qkv_bias, rows.size(), k)?
            }
            (LinearKind::Qkv, _) => {
                let (q, kv) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
                self.stacked(&[(name("attn_q"), q), (name("attn_k"), kv), (name("attn_v"), kv)], a.qkv_bias, k)?
            }
            (LinearKind::AttentionOutput, _) => self.linear(&name("attn_output"), a.output_bias, rows.size(), k)?,
            (LinearKind::Up, Some(expert)) => {
                (self.expert_matrix((layer, "ffn_up_exps"), expert, f.intermediate_size, k)?, vec![0.0; rows.size()])
            }
            (LinearKind::Down, Some(expert)) => {
                (self.expert_matrix((layer, "ffn_down_exps"), expert, rows.size(), k)?, vec![0.0; rows.size()])
            }
            (LinearKind::Up, None) => self.up_matrix(layer, k)?,
            (LinearKind::Down, None) => self.linear(&name("ffn_down"), f.down_bias, rows.size(), k)?,
        };
        Ok(Matrix { weight, bias, rows, columns })
    }

    /// The gate, if there is one, then the other projection: two tensors, or one in either order.
    fn up_matrix(&self, layer: usize, k: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let f = &self.spec.feed_forward;
        let (n, has_bias) = (f.intermediate_size, f.up_bias);
        let name = |part: &str| format!("blk.{layer}.{part}");
        let [up, gate_up, up_gate] = ["ffn_up", "ffn_gate_up", "ffn_up_gate"].map(name);
        if !f.gated {
            return self.linear(&up, has_bias, n, k);
        }
        if self.has_weight(&gate_up) {
            return self.linear(&gate_up, has_bias, 2 * n, k);
        }
        if self.has_weight(&up_gate) {
            let (mut weight, mut bias) = self.linear(&up_gate, has_bias, 2 * n, k)?;
            weight.rotate_left(n * k);
            bias.rotate_left(n);
            return Ok((weight, bias));
        }
        let is_stacked = self.weights.shape(&format!("{up}.weight")).is_ok_and(|shape| shape.first() == Some(&(2 * n)));
        if is_stacked && !self.has_weight(&name("ffn_gate")) {
            return self.linear(&up, has_bias, 2 * n, k);
        }
        self.stacked(&[(name("ffn_gate"), n), (up, n)], has_bias, k)
    }

    /// The matrix `[rows, columns]` of an expert: from a tensor `[experts, rows, columns]`, or of all experts' inner dimensions
    /// `[experts * I, D]`, where the matrix to hidden states is transposed.
    fn expert_matrix(
        &self,
        (layer, name): (usize, &str),
        expert: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<f32>> {
        let name = format!("blk.{layer}.{name}.weight");
        let count = self.spec.layers[layer].experts.map_or(1, |experts| experts.count);
        let (len, d) = (rows * columns, self.spec.hidden_size);
        let is_stacked = self.weights.shape(&name)?.len() == 2;
        let expected = if is_stacked { vec![count * (len / d), d] } else { vec![count, rows, columns] };
        let matrix = self.weights.floats_of_part(&name, &expected, expert, count)?;
        if !is_stacked || columns == d {
            return Ok(matrix);
        }
        Ok((0..len).map(|i| matrix[i % columns * d + i / columns]).collect())
    }

    /// A product for the kernels.
    pub(crate) fn packed(&self, layer: usize, kind: LinearKind, expert: Option<usize>) -> Result<PackedRhs> {
        let (rows, columns) = self.shape(kind);
        let name = Self::packed_name(layer, kind, expert);
        match self.weights.packed(&name) {
            Some(bytes) => PackedRhs::from_bytes(bytes.clone(), rows.padded_size(), columns.padded_size())
                .map_err(|e| Error::from(e).with_context(format_args!("tensor {name:?}"))),
            None => self.matrix(layer, kind, expert)?.pack(None, LOAD_GROUP),
        }
    }

    /// What layers share.
    pub(super) fn shared(&self, isa: Isa) -> Result<SharedWeights> {
        let mut shared = SharedWeights { isa, ropes: vec![], distance_bias: None, distances: vec![] };
        for rope in self.spec.layers.iter().filter_map(|layer| layer.rope.as_ref()) {
            if !shared.ropes.iter().any(|known| known.rope() == rope) {
                shared.ropes.push(Arc::new(RopeTable::new(rope.clone())));
            }
        }
        match self.spec.attention.position_bias {
            PositionBias::RelativeBuckets { buckets, max_distance } => {
                let table = self.weights.floats("attn_rel_b.weight", &[buckets, self.spec.attention.heads])?;
                shared.distance_bias = Some(Arc::new(DistanceBias::from_buckets(&table, buckets, max_distance)));
            }
            PositionBias::Disentangled { span, norm, .. } => {
                let d = self.spec.hidden_size;
                shared.distances = self.weights.floats("rel_embd.weight", &[2 * span, d])?;
                if norm {
                    let norm = self.norm_of_kind("rel_embd_norm", d, NormKind::LayerNorm)?;
                    norm.apply(isa, &mut shared.distances, d);
                }
            }
            PositionBias::None | PositionBias::Alibi => {}
        }
        Ok(shared)
    }

    /// A whole layer.
    pub(super) fn layer(&self, index: usize, shared: &SharedWeights) -> Result<EncoderLayer> {
        let (spec, d) = (&self.spec.layers[index], self.spec.hidden_size);
        let norms = |before: &str, after: &str, residual: &str| {
            let norm = |name: &str| self.norm(&format!("blk.{index}.{name}"), d).map(Some);
            Ok::<_, Error>(match self.spec.norm_placement {
                NormPlacement::PostNorm | NormPlacement::PostNormTwice => {
                    BlockNorms { residual: norm(residual)?, ..BlockNorms::default() }
                }
                NormPlacement::PreNorm => BlockNorms { before: norm(before)?, ..BlockNorms::default() },
                NormPlacement::Both => {
                    BlockNorms { before: norm(before)?, after: norm(after)?, ..BlockNorms::default() }
                }
            })
        };
        let attention_norms = match self.spec.norm_placement {
            _ if spec.skip_attention_norm => BlockNorms::default(),
            NormPlacement::PostNormTwice => BlockNorms {
                after: Some(self.norm(&format!("blk.{index}.attn_output_norm"), d)?),
                inner_residual: true,
                residual: Some(self.norm(&format!("blk.{index}.attn_norm_2"), d)?),
                before: None,
            },
            _ => norms("attn_norm", "post_attention_norm", "attn_output_norm")?,
        };
        Ok(EncoderLayer {
            attention: self.attention(index, shared)?,
            attention_norms,
            feed_forward: match spec.experts {
                None => FeedForwardBlock::Dense(self.feed_forward(index, None)?),
                Some(experts) => FeedForwardBlock::Experts(self.mixture(index, experts)?),
            },
            feed_forward_norms: norms("ffn_norm", "post_ffw_norm", "layer_output_norm")?,
        })
    }

    fn attention(&self, index: usize, shared: &SharedWeights) -> Result<Attention> {
        let (a, layer) = (&self.spec.attention, &self.spec.layers[index]);
        let (q, k) = (format!("blk.{index}.attn_q_norm"), format!("blk.{index}.attn_k_norm"));
        let qk_norms = match a.qk_norm {
            QkNorm::None => None,
            QkNorm::Heads => Some(QkNorms::Heads(self.norm(&q, a.head_dim)?, self.norm(&k, a.head_dim)?)),
            QkNorm::All => {
                Some(QkNorms::All(self.norm(&q, a.heads * a.head_dim)?, self.norm(&k, a.kv_heads * a.head_dim)?))
            }
        };
        let rope = layer.rope.as_ref().and_then(|rope| shared.ropes.iter().find(|known| known.rope() == rope));
        Ok(Attention {
            qkv_proj: self.packed(index, LinearKind::Qkv, None)?,
            o_proj: self.packed(index, LinearKind::AttentionOutput, None)?,
            heads: a.heads,
            kv_heads: a.kv_heads,
            head_dim: a.head_dim,
            divisor: a.scale_dim.sqrt(),
            qk_norms,
            rope: rope.cloned(),
            pattern: AttentionPattern {
                causal: a.causal,
                window: layer.window,
                bias: self.position_bias(index, shared)?,
            },
        })
    }

    fn position_bias(&self, index: usize, shared: &SharedWeights) -> Result<PositionBiasWeights> {
        Ok(match self.spec.attention.position_bias {
            PositionBias::None => PositionBiasWeights::None,
            PositionBias::Alibi => PositionBiasWeights::Alibi(alibi_slopes(self.spec.attention.heads)),
            PositionBias::RelativeBuckets { .. } => {
                shared.distance_bias.clone().map_or(PositionBiasWeights::None, PositionBiasWeights::Distances)
            }
            PositionBias::Disentangled {
                span,
                max_distance,
                content_to_position,
                position_to_content,
                shared_projections,
                ..
            } => {
                let qkv = if shared_projections { Some(self.matrix(index, LinearKind::Qkv, None)?) } else { None };
                let project = |part: usize, own: &str| self.project_distances(index, shared, qkv.as_ref(), part, own);
                PositionBiasWeights::Disentangled(Disentangled {
                    keys: if content_to_position { project(1, "attn_pos_k")? } else { vec![] },
                    queries: if position_to_content { project(0, "attn_pos_q")? } else { vec![] },
                    span,
                    max_distance,
                })
            }
        })
    }

    /// Embeddings of distances, projected as queries (part 0) or keys (part 1) by the matrix of the layer, or if it is not shared by
    /// the tensor `own`: `[heads][2 * span][padded head_dim]`.
    fn project_distances(
        &self,
        index: usize,
        shared: &SharedWeights,
        qkv: Option<&Matrix>,
        part: usize,
        own: &str,
    ) -> Result<Vec<f32>> {
        let (a, d, n) = (&self.spec.attention, self.spec.hidden_size, self.spec.query_dim());
        let read;
        let (weight, bias) = match qkv {
            Some(qkv) => (&qkv.weight[part * n * d..(part + 1) * n * d], &qkv.bias[part * n..(part + 1) * n]),
            None => {
                read = self.linear(&format!("blk.{index}.{own}"), a.qkv_bias, n, d)?;
                (&read.0[..], &read.1[..])
            }
        };
        let rows = shared.distances.len() / d;
        let mut projected = vec![0.0; rows * n];
        rowwise::matmul(shared.isa, &shared.distances, weight, d, &mut projected);
        rowwise::add_bias(&mut projected, bias);
        let padded = PaddedDim::one(a.head_dim).padded_part();
        let mut out = vec![0.0; a.heads * rows * padded];
        for (i, row) in projected.chunks_exact(n).enumerate() {
            for (h, head) in row.chunks_exact(a.head_dim).enumerate() {
                out[(h * rows + i) * padded..][..a.head_dim].copy_from_slice(head);
            }
        }
        Ok(out)
    }

    fn feed_forward(&self, index: usize, expert: Option<usize>) -> Result<FeedForward> {
        let f = &self.spec.feed_forward;
        Ok(FeedForward {
            up_proj: self.packed(index, LinearKind::Up, expert)?,
            gated: f.gated,
            activation: f.activation,
            down_proj: self.packed(index, LinearKind::Down, expert)?,
        })
    }

    fn mixture(&self, index: usize, experts: Experts) -> Result<MixtureOfExperts> {
        let (count, d) = (experts.count, self.spec.hidden_size);
        let networks = (0..count).map(|expert| self.feed_forward(index, Some(expert)));
        Ok(MixtureOfExperts {
            router: self.weights.floats(&format!("blk.{index}.ffn_gate_inp.weight"), &[count, d])?,
            experts: networks.collect::<Result<_>>()?,
            // llama.cpp's files have none.
            bias: match format!("blk.{index}.ffn_exps.bias") {
                name if self.weights.contains(&name) => self.weights.floats(&name, &[d])?,
                _ => vec![0.0; d],
            },
            per_token: experts.per_token,
        })
    }
}
