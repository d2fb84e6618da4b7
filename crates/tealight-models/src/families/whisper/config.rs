//! Sizes of a Whisper, told by its tensors and the files beside them.

use crate::formats::weights::Weights;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tealight_core::{Error, Result};
use tealight_kernels::int8::PackedRhs;

/// Frames of a window of 30 s.
pub const FRAMES: usize = 3000;
/// Values of a head, in every size of Whisper.
const HEAD: usize = 64;

/// Sizes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Width of a row, D.
    pub width: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Width inside the feed-forward networks.
    pub inner: usize,
    /// Blocks of the encoder.
    pub encoder_layers: usize,
    /// Blocks of the decoder.
    pub decoder_layers: usize,
    /// Token ids.
    pub vocabulary: usize,
    /// Mel bands.
    pub bands: usize,
    /// Rows of the encoder for a window.
    pub audio_rows: usize,
    /// The longest prompt and text together, in tokens.
    pub text_tokens: usize,
    /// Decoder layer and head of those that follow the audio word by word.
    pub alignment: Vec<(usize, usize)>,
    /// Ids that are never text: symbols of annotations.
    pub suppressed: Vec<u32>,
}

impl Config {
    /// From shapes; `heads` where a file tells, and what `config.json` or `generation_config.json` say.
    ///
    /// # Errors
    /// A tensor is missing, or sizes do not fit each other or the kernels.
    pub fn new(weights: &Weights, heads: Option<usize>, json: &Value) -> Result<Self> {
        let shape = |name: &str| weights.shape(name);
        let layers =
            |side: &str| (0..).take_while(|i| weights.contains(&format!("{side}.layers.{i}.fc1.weight"))).count();
        let size = |shape: &[usize], axis: usize| shape.get(axis).copied().unwrap_or(0);
        let tokens = shape("decoder.embed_tokens.weight")?;
        let (vocabulary, width) = (size(tokens, 0), size(tokens, 1));
        let this = Self {
            width,
            heads: heads.unwrap_or(width / HEAD),
            inner: size(shape("encoder.layers.0.fc1.weight")?, 0),
            encoder_layers: layers("encoder"),
            decoder_layers: layers("decoder"),
            vocabulary,
            bands: size(shape("encoder.conv1.weight")?, 1),
            audio_rows: size(shape("encoder.embed_positions.weight")?, 0),
            text_tokens: size(shape("decoder.embed_positions.weight")?, 0),
            alignment: pairs(&json["alignment_heads"]),
            suppressed: ids(json.get("suppress_ids").unwrap_or(&json["suppress_tokens"])),
        };
        this.checked()
    }

    /// Refuses sizes that do not fit each other or the kernels.
    pub(super) fn checked(self) -> Result<Self> {
        let Self { width, heads, inner, .. } = self;
        if !PackedRhs::can_pack(width) || !PackedRhs::can_pack(inner) || heads == 0 || !width.is_multiple_of(16 * heads)
        {
            return Err(Error::invalid_model(format!(
                "rows of {width} and {inner} values with {heads} heads are not Whisper's"
            )));
        }
        if self.audio_rows * 2 != FRAMES || self.decoder_layers == 0 || self.text_tokens < 32 {
            return Err(Error::invalid_model(format!(
                "{} audio rows, {} layers and {} text tokens are not Whisper's",
                self.audio_rows, self.decoder_layers, self.text_tokens
            )));
        }
        if !PackedRhs::can_pack(3 * self.bands) {
            return Err(Error::invalid_model(format!("{} mel bands are not Whisper's", self.bands)));
        }
        let inside = |(layer, head): &(usize, usize)| *layer < self.decoder_layers && *head < heads;
        if !self.alignment.iter().all(inside) {
            return Err(Error::invalid_model(format!(
                "alignment_heads {:?} are not all in the decoder",
                self.alignment
            )));
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
