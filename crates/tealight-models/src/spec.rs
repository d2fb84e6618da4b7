//! An encoder network as data: what the families of [`families`](crate::families) say about themselves, and what packed files store.
//!
//! A layer has two blocks, attention and a feed-forward network. Each computes `x = residual_norm(x + after_norm(f(before_norm(x))))`,
//! where each of the three norms may be missing: BERT has the last, most later networks the first, Gemma the first two.

use crate::layers::{Activation, Rope};
use serde::{Deserialize, Serialize};
use tealight_core::{Error, Result};

pub(crate) const MAX_LAYERS: usize = 1000;
const MAX_HEADS: usize = 1 << 12;
/// Bounds products of sizes.
const MAX_SIZE: usize = 1 << 30;
/// Columns of all query heads.
const MAX_QUERY_DIM: usize = 1 << 31;
/// Buckets of distances, or distances.
const MAX_BUCKETS: usize = 1 << 13;
/// Bytes of the projected embeddings of distances of all layers.
const MAX_DISTANCE_BYTES: usize = 1 << 30;

/// An encoder: it computes a hidden state for each token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderSpec {
    /// Rows of the token embedding table, V.
    pub vocab_size: usize,
    /// Values of a hidden state, D.
    pub hidden_size: usize,
    /// The longest text, in tokens.
    pub max_tokens: usize,
    /// Before the first layer.
    pub embeddings: EmbeddingSpec,
    /// What all layers have in common.
    pub attention: AttentionSpec,
    /// What all layers have in common.
    pub feed_forward: FeedForwardSpec,
    /// What differs between layers, in order.
    pub layers: Vec<LayerSpec>,
    /// How rows are normalized.
    pub norm: Norm,
    /// Where layers normalize.
    pub norm_placement: NormPlacement,
    /// Whether the output of the last layer is normalized.
    pub final_norm: bool,
}

/// The sum of the embeddings of a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingSpec {
    /// Factor of the token embedding.
    pub scale: f32,
    /// Learned position embeddings.
    pub positions: Option<LearnedPositions>,
    /// Rows of the table of token types, or 0.
    pub token_types: usize,
    /// Whether the sum is normalized.
    pub norm: bool,
}

/// A table of position embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnedPositions {
    /// Rows of the table.
    pub rows: usize,
    /// The row of the first token: RoBERTa counts from `pad_token_id + 1`.
    pub offset: usize,
}

/// Self-attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionSpec {
    /// Query heads, H.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Scores are divided by the square root of this; `head_dim` in most networks.
    pub scale_dim: f32,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub output_bias: bool,
    /// Normalization of queries and keys before their rotation.
    pub qk_norm: QkNorm,
    /// Whether a token attends to earlier tokens only.
    pub causal: bool,
    /// What is added to the scores.
    pub position_bias: PositionBias,
}

/// Normalization of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QkNorm {
    /// None.
    None,
    /// RMSNorm of each head.
    Heads,
    /// LayerNorm of all heads together.
    All,
}

/// What depends on positions and is added to the scores of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionBias {
    /// Nothing.
    None,
    /// The distance times a slope that depends on the head (ALiBi; Press et al. 2021, arXiv 2108.12409), for both directions.
    Alibi,
    /// A learned number for each head and bucket of distances (T5; Raffel et al. 2019, arXiv 1910.10683), the same in all layers.
    RelativeBuckets {
        /// Buckets, half of them for each direction.
        buckets: usize,
        /// All larger distances share the last bucket.
        max_distance: usize,
    },
    /// Products of queries and keys with projected embeddings of distances (DeBERTa; He et al. 2020, arXiv 2006.03654).
    Disentangled {
        /// Distances are clipped to -span..span, which are the `2 * span` rows of the table.
        span: usize,
        /// Above `buckets / 2`, distances share logarithmic buckets up to this distance; 0 for no buckets.
        max_distance: usize,
        /// Whether queries are multiplied by the keys of distances.
        content_to_position: bool,
        /// Whether keys are multiplied by the queries of distances.
        position_to_content: bool,
        /// Whether distances are projected by the layer's own matrices of queries and keys.
        shared_projections: bool,
        /// Whether the table is normalized.
        norm: bool,
    },
}

/// The feed-forward network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedForwardSpec {
    /// Inner dimension, I.
    pub intermediate_size: usize,
    /// Whether the network is `down(activation(gate(x)) * up(x))` instead of `down(activation(up(x)))` (GLU variants; Shazeer 2020,
    /// arXiv 2002.05202).
    pub gated: bool,
    /// The activation.
    pub activation: Activation,
    /// Whether the projections to the inner dimension have biases.
    pub up_bias: bool,
    /// Whether the projection to hidden states has a bias.
    pub down_bias: bool,
}

/// What differs between layers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerSpec {
    /// Rotary position embedding of queries and keys.
    pub rope: Option<Rope>,
    /// A token attends only to tokens at a distance of at most this.
    pub window: Option<usize>,
    /// Whether hidden states enter attention without the norm before it, as in the first layer of ModernBERT.
    pub skip_attention_norm: bool,
    /// Several feed-forward networks, of which each token passes through a few.
    pub experts: Option<Experts>,
}

/// A mixture of experts (Shazeer et al. 2017, arXiv 1701.06538).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// Number of experts.
    pub count: usize,
    /// Experts that each token passes through: those with the largest router weights.
    pub per_token: usize,
}

/// Normalization of rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Norm {
    /// The formula.
    pub kind: NormKind,
    /// Added to the variance or the mean square.
    pub eps: f32,
}

/// The formula of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// LayerNorm (Ba et al. 2016, arXiv 1607.06450).
    LayerNorm,
    /// LayerNorm without biases.
    LayerNormNoBias,
    /// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467).
    RmsNorm,
    /// RMSNorm whose factors are `1 + weight`.
    RmsNormPlusOne,
}

/// Where the two blocks of a layer normalize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlacement {
    /// After each residual connection (Vaswani et al. 2017).
    PostNorm,
    /// After each residual connection; attention has two, with a norm after each, as JinaBERT v2 for code.
    PostNormTwice,
    /// Before each block (Xiong et al. 2020, arXiv 2002.04745).
    PreNorm,
    /// Before each block, and its output before the residual connection.
    Both,
}

impl EncoderSpec {
    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// The field and its value.
    pub fn validate(self) -> Result<Self> {
        let Self { attention: a, feed_forward: f, .. } = &self;
        let range = |name: &str, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::invalid_model(format!("{name} is {value}; expected 1 to {max}")))
        };
        range("vocab_size", self.vocab_size, MAX_SIZE)?;
        range("hidden_size", self.hidden_size, MAX_SIZE)?;
        range("max_position_embeddings", self.max_tokens, u32::MAX as usize)?;
        range("num_hidden_layers", self.layers.len(), MAX_LAYERS)?;
        range("num_attention_heads", a.heads, MAX_HEADS)?;
        range("num_key_value_heads", a.kv_heads, a.heads)?;
        range("head_dim", a.head_dim, MAX_SIZE)?;
        range("intermediate_size", f.intermediate_size, MAX_SIZE)?;
        if !a.heads.is_multiple_of(a.kv_heads) {
            return Err(Error::invalid_model(format!(
                "num_attention_heads {} is not a multiple of num_key_value_heads {}",
                a.heads, a.kv_heads
            )));
        }
        if !(a.scale_dim.is_finite() && a.scale_dim > 0.0) {
            return Err(Error::invalid_model(format!(
                "scores have the scale {}; expected a positive number",
                a.scale_dim
            )));
        }
        if let Some(LearnedPositions { rows, offset }) = self.embeddings.positions
            && offset.checked_add(self.max_tokens).is_none_or(|end| end > rows)
        {
            return Err(Error::invalid_model(format!(
                "there are {rows} position embeddings; expected {} + {offset}",
                self.max_tokens
            )));
        }
        range("num_attention_heads x head_dim", self.query_dim(), MAX_QUERY_DIM)?;
        let (eps, scale) = (self.norm.eps, self.embeddings.scale);
        if !(eps.is_finite() && eps >= 0.0 && scale.is_finite()) {
            return Err(Error::invalid_model(format!(
                "the epsilon of norms is {eps} and the factor of embeddings {scale}; expected finite numbers"
            )));
        }
        self.validate_position_bias()?;
        for layer in &self.layers {
            self.validate_layer(layer)?;
            if let Some(rope) = &layer.rope {
                rope.validate(a.head_dim)?;
            }
            if let Some(Experts { count, per_token }) = layer.experts {
                range("num_experts", count, 1 << 10)?;
                range("moe_top_k", per_token, count)?;
            }
        }
        Ok(self)
    }

    fn validate_layer(&self, layer: &LayerSpec) -> Result<()> {
        if let Some(window) = layer.window.filter(|window| *window > MAX_SIZE) {
            return Err(Error::invalid_model(format!("a window has {window} tokens; the limit is {MAX_SIZE}")));
        }
        if layer.skip_attention_norm && self.norm_placement != NormPlacement::PreNorm {
            return Err(Error::invalid_model(
                "a layer without its first norm is not supported unless all norms come first",
            ));
        }
        if layer.experts.is_some() && self.feed_forward.gated {
            return Err(Error::invalid_model("experts with a gated feed-forward network are not supported"));
        }
        Ok(())
    }

    fn validate_position_bias(&self) -> Result<()> {
        match self.attention.position_bias {
            PositionBias::None | PositionBias::Alibi => Ok(()),
            PositionBias::RelativeBuckets { buckets, max_distance } => {
                if (4..=MAX_BUCKETS).contains(&buckets) && max_distance > buckets / 4 && max_distance <= MAX_BUCKETS {
                    return Ok(());
                }
                Err(Error::invalid_model(format!(
                    "relative_attention_num_buckets is {buckets} for distances up to {max_distance}; expected 4 to {MAX_BUCKETS} \
                     buckets, and less than four times the distance"
                )))
            }
            PositionBias::Disentangled { span, max_distance, .. } => {
                let is_distance_valid = max_distance == 0 || (max_distance > span / 2 + 1 && max_distance <= MAX_SIZE);
                if !(2..=MAX_BUCKETS).contains(&span) || !is_distance_valid {
                    return Err(Error::invalid_model(format!(
                        "position_buckets is {span} for distances up to {max_distance}; expected 2 to {MAX_BUCKETS}, and a \
                         distance above half of it"
                    )));
                }
                let bytes = 2 * 2 * 4 * span * self.query_dim() * self.layers.len();
                if bytes > MAX_DISTANCE_BYTES {
                    return Err(Error::invalid_model(format!(
                        "the embeddings of distances need {bytes} bytes; the limit is {MAX_DISTANCE_BYTES}"
                    )));
                }
                if self.attention.causal || self.layers.iter().any(|layer| layer.window.is_some()) {
                    return Err(Error::invalid_model(
                        "disentangled attention with a causal mask or a window is not supported",
                    ));
                }
                Ok(())
            }
        }
    }

    /// Columns of the output of the query projection.
    pub(crate) fn query_dim(&self) -> usize {
        self.attention.heads * self.attention.head_dim
    }

    /// Operations of the matrix products for a text of `tokens` tokens; a multiplication and an addition count as two.
    pub(crate) fn matmul_ops(&self, tokens: usize) -> u64 {
        let (a, f, d) = (&self.attention, &self.feed_forward, self.hidden_size);
        let qkv = (a.heads + 2 * a.kv_heads) * a.head_dim * d;
        let feed_forward = |layer: &LayerSpec| {
            let matrices = if f.gated { 3 } else { 2 };
            matrices * d * f.intermediate_size * layer.experts.map_or(1, |e| e.per_token)
        };
        let per_token: usize = self.layers.iter().map(|layer| qkv + self.query_dim() * d + feed_forward(layer)).sum();
        // A score and its product with a value for each pair of tokens that attend to each other.
        let pairs = |layer: &LayerSpec| tokens * layer.window.map_or(tokens, |w| tokens.min(2 * w + 1));
        let attention: usize = self.layers.iter().map(|layer| 2 * pairs(layer) * self.query_dim()).sum();
        2 * (tokens * per_token + attention) as u64
    }
}
