//! Sizes of a network, from its tensors and the JSON files of its folder.

use crate::formats::weights::Weights;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tealight_core::{Error, Result};
use tealight_kernels::int8::PackedRhs;

/// Log-mel frames of a window of 30 s.
pub const N_FRAMES: usize = 3000;
/// Dimension of an attention head in all published models.
const HEAD_DIM: usize = 64;
/// Minimum context of the decoder: the prompt of special tokens and some text.
const MIN_TARGET_POSITIONS: usize = 32;

/// Sizes of a network, by the names of Hugging Face's `WhisperConfig`. The serialized names are those of packed files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhisperConfig {
    /// Size of hidden states, D.
    #[serde(rename = "width")]
    pub d_model: usize,
    /// Attention heads in the encoder and the decoder.
    #[serde(rename = "heads")]
    pub num_attention_heads: usize,
    /// Size of the hidden layer of the feed-forward networks.
    #[serde(rename = "inner")]
    pub ffn_dim: usize,
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Number of token ids, V.
    #[serde(rename = "vocabulary")]
    pub vocab_size: usize,
    /// Mel bins of a frame.
    #[serde(rename = "bands")]
    pub num_mel_bins: usize,
    /// Encoder positions of a window.
    #[serde(rename = "audio_rows")]
    pub max_source_positions: usize,
    /// Maximum number of tokens of prompt and text.
    #[serde(rename = "text_tokens")]
    pub max_target_positions: usize,
    /// (layer, head) of the decoder's heads that attend to the spoken word.
    #[serde(rename = "alignment")]
    pub alignment_heads: Vec<(usize, usize)>,
    /// Tokens that are never decoded, such as annotations of sounds.
    #[serde(rename = "suppressed")]
    pub suppress_tokens: Vec<u32>,
}

impl WhisperConfig {
    /// Derives the sizes from the shapes of the tensors. `num_attention_heads` is the file's number of heads, if it has one; `json`
    /// is `config.json`, with the fields of `generation_config.json`.
    ///
    /// # Errors
    /// A tensor is missing, or a size is invalid.
    pub fn from_weights(weights: &Weights, num_attention_heads: Option<usize>, json: &Value) -> Result<Self> {
        let shape = |name: &str| weights.shape(name);
        let layers =
            |side: &str| (0..).take_while(|i| weights.contains(&format!("{side}.layers.{i}.fc1.weight"))).count();
        let size = |shape: &[usize], axis: usize| shape.get(axis).copied().unwrap_or(0);
        let embed_tokens = shape("decoder.embed_tokens.weight")?;
        let (vocab_size, d_model) = (size(embed_tokens, 0), size(embed_tokens, 1));
        Self {
            d_model,
            num_attention_heads: num_attention_heads.unwrap_or(d_model / HEAD_DIM),
            ffn_dim: size(shape("encoder.layers.0.fc1.weight")?, 0),
            encoder_layers: layers("encoder"),
            decoder_layers: layers("decoder"),
            vocab_size,
            num_mel_bins: size(shape("encoder.conv1.weight")?, 1),
            max_source_positions: size(shape("encoder.embed_positions.weight")?, 0),
            max_target_positions: size(shape("decoder.embed_positions.weight")?, 0),
            alignment_heads: pairs(&json["alignment_heads"]),
            suppress_tokens: ids(json.get("suppress_ids").unwrap_or(&json["suppress_tokens"])),
        }
        .validate()
    }

    /// Checks that the sizes are consistent and supported by the kernels.
    pub(super) fn validate(self) -> Result<Self> {
        let Self { d_model, num_attention_heads: heads, ffn_dim, .. } = self;
        let invalid = |message: String| Err(Error::invalid_model(message));
        if !PackedRhs::can_pack(d_model) || !PackedRhs::can_pack(ffn_dim) {
            return invalid(format!("d_model is {d_model} and ffn_dim {ffn_dim}; expected positive multiples of 16"));
        }
        if heads == 0 || !d_model.is_multiple_of(16 * heads) {
            return invalid(format!(
                "d_model is {d_model} with {heads} attention heads; expected a multiple of 16 values per head"
            ));
        }
        if self.max_source_positions * 2 != N_FRAMES {
            return invalid(format!(
                "max_source_positions is {}; expected {}",
                self.max_source_positions,
                N_FRAMES / 2
            ));
        }
        if self.decoder_layers == 0 {
            return invalid("the decoder has no layers".into());
        }
        if self.max_target_positions < MIN_TARGET_POSITIONS {
            let positions = self.max_target_positions;
            return invalid(format!("max_target_positions is {positions}; expected at least {MIN_TARGET_POSITIONS}"));
        }
        if !PackedRhs::can_pack(3 * self.num_mel_bins) {
            return invalid(format!("num_mel_bins is {}; expected a positive multiple of 16", self.num_mel_bins));
        }
        let is_in_decoder = |(layer, head): &(usize, usize)| *layer < self.decoder_layers && *head < heads;
        if !self.alignment_heads.iter().all(is_in_decoder) {
            return invalid(format!(
                "alignment_heads is {:?}; expected layers below {} and heads below {heads}",
                self.alignment_heads, self.decoder_layers
            ));
        }
        Ok(self)
    }
}

fn ids(json: &Value) -> Vec<u32> {
    json.as_array().into_iter().flatten().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

fn pairs(json: &Value) -> Vec<(usize, usize)> {
    let pair = |p: &Value| Some((p.get(0)?.as_u64()? as usize, p.get(1)?.as_u64()? as usize));
    json.as_array().into_iter().flatten().filter_map(pair).collect()
}
