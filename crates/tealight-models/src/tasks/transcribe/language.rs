//! The spoken language: requested, or detected in the first window.

use super::options::TranscribeOptions;
use crate::families::whisper::Whisper;
use crate::families::whisper::decoder::{CrossKv, DecoderScratch};
use tealight_core::{Error, Result};
use tealight_kernels::{CpuContext, rowwise};

/// The token of the requested language. `None` if it is to be detected, and for English-only models, which have no language tokens.
pub(super) fn requested_language(model: &Whisper, options: &TranscribeOptions) -> Result<Option<u32>> {
    let Some(code) = &options.language else { return Ok(None) };
    if !model.tokenizer.is_multilingual() {
        return match code.as_str() {
            "en" => Ok(None),
            other => {
                Err(Error::invalid_value("language", format!("language is {other:?}; this model supports en only")))
            }
        };
    }
    model.tokenizer.language_token(code).map(Some).ok_or_else(|| {
        let supported = model.tokenizer.languages.join(", ");
        Error::invalid_value("language", format!("language is {code:?}; this model supports {supported}"))
    })
}

/// The most probable language token for a window.
pub(super) fn detect_language(model: &Whisper, cpu: &CpuContext, cross_kv: &CrossKv) -> u32 {
    let probabilities = language_probabilities(model, cpu, cross_kv);
    let more_probable = |best: (usize, f32), (i, p): (usize, &f32)| if *p > best.1 { (i, *p) } else { best };
    let (index, _) = probabilities.iter().enumerate().fold((0, 0.0), more_probable);
    model.tokenizer.special.sot + 1 + index as u32
}

/// The probability of each of the tokenizer's languages, from the logits after the start token.
fn language_probabilities(model: &Whisper, cpu: &CpuContext, cross_kv: &CrossKv) -> Vec<f32> {
    let (mut scratch, mut logits) = (DecoderScratch::default(), vec![]);
    let sot = model.tokenizer.special.sot;
    model.decoder.forward(cpu, cross_kv, &mut [model.decoder.new_cache()], &[sot], &mut scratch);
    model.decoder.logits(cpu, 0..1, &mut scratch, &mut logits);
    let first = sot as usize + 1;
    let mut probabilities = logits[first..first + model.tokenizer.languages.len()].to_vec();
    rowwise::softmax(cpu.isa, &mut probabilities);
    probabilities
}

/// The code of a language token; `en` for English-only models.
pub(super) fn language_code(model: &Whisper, token: Option<u32>) -> &str {
    let index = token.map(|id| (id - model.tokenizer.special.sot - 1) as usize);
    index.and_then(|i| model.tokenizer.languages.get(i)).map_or("en", String::as_str)
}
