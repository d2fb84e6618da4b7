//! Writes a model as one GGUF file, quantised and laid out for the kernels, with everything that is needed to use it.

use super::gguf::{self, Entry, TensorData};
use super::tokenizer::Direction;
use super::{Batch, Parts, bert};
use crate::formats::weights::Precision;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tealight_core::files::write_atomic;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// What a file cannot know about itself.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// `general.name`.
    pub name: Option<String>,
    /// `general.license`, as an SPDX name.
    pub license: Option<String>,
    /// `general.source.url`.
    pub source: Option<String>,
}

/// The texts that show which channels are large: English prose of many kinds, one a line.
const CALIBRATION: &str = include_str!("calibration.txt");

/// Calibration texts of a forward pass.
const TEXTS: usize = 64;

/// Packs a model folder or a GGUF file into `output`: matrices and the token table in int8, as the kernels read them, the
/// rest in f32, tensors in the order of use. Channels are evened out by what `calibration` texts show, or the built-in ones.
///
/// Equal input gives equal bytes. The file is written under a temporary name and renamed.
///
/// # Errors
/// The model cannot be loaded, is packed already, has a size that cannot be packed, or the file cannot be written.
pub fn pack(cpu: &CpuContext, source: &Path, labels: &Labels, calibration: Option<&str>, output: &Path) -> Result<()> {
    let packed = Packing::of(cpu, source, labels, calibration.unwrap_or(CALIBRATION));
    let Packing { metadata, tensors } =
        packed.map_err(|e| e.with_context(format_args!("model {}", source.display())))?;
    write_atomic(output, |out| gguf::write(out, &metadata, &tensors))
}

/// What goes into a packed file.
struct Packing {
    metadata: Vec<(String, Entry)>,
    tensors: Vec<(String, TensorData)>,
}

impl Packing {
    fn of(cpu: &CpuContext, source: &Path, labels: &Labels, calibration: &str) -> Result<Self> {
        let Parts { config, weights, file, tokenizer, source: tokens, pipeline, about } =
            Parts::open(source, Precision::F32)?;
        if weights.packed("token_embd.weight").is_some() {
            return Err(Error::invalid_model("is packed already; pack what it was made from"));
        }
        let labels = Labels {
            name: labels.name.clone().or(about.name),
            license: labels.license.clone().or(about.license),
            source: labels.source.clone().or(about.source),
        };
        let bert = bert::Bert::new(cpu, config.clone(), &weights)?;
        let texts = calibration.lines().filter(|line| !line.trim().is_empty());
        let limit = pipeline.max_tokens.unwrap_or(config.positions).min(config.positions);
        let ids =
            texts.map(|text| Ok(tokenizer.cut(&tokenizer.surround(&tokenizer.ids(text)?), limit, Direction::Right)));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        if ids.is_empty() {
            return Err(Error::invalid_value("calibration", "calibration has no texts"));
        }
        // A few texts at a time: memory must not grow with the calibration.
        let batches: Vec<_> = ids.chunks(TEXTS).map(|ids| Batch::new(ids.iter().map(Vec::as_slice))).collect();
        let ranges = bert.ranges(cpu, &batches)?;
        let mut tensors = bert::tensors(&config, &weights, &ranges)?;
        tensors.extend(pipeline.tensors());
        let mut metadata = general(&about.architecture, &labels, &sha256(&file)?);
        metadata.extend(config.entries());
        metadata.extend(pipeline.entries(&about.architecture));
        metadata.extend(tokens.entries());
        Ok(Self { metadata, tensors })
    }
}

/// Tensors that were made of a model's, in the order in which they were asked for, where a file is to be written of them.
#[derive(Debug)]
pub(super) struct Made(Option<Mutex<Vec<(String, TensorData)>>>);

impl Made {
    /// Keeps what is made, or nothing.
    pub(super) fn new(keep: bool) -> Self {
        Self(keep.then(Mutex::default))
    }

    pub(super) fn keep(&self, name: String, tensor: impl FnOnce() -> TensorData) {
        if let Some(made) = &self.0 {
            made.lock().unwrap_or_else(PoisonError::into_inner).push((name, tensor()));
        }
    }

    /// What was kept.
    pub(super) fn tensors(self) -> Vec<(String, TensorData)> {
        self.0.map_or_else(Vec::new, |made| made.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keys that every packed file has.
pub(super) fn general(architecture: &str, labels: &Labels, weights_sha256: &str) -> Vec<(String, Entry)> {
    let mut entries = vec![("general.architecture".to_string(), Entry::String(architecture.into()))];
    let texts = [("name", &labels.name), ("license", &labels.license), ("source.url", &labels.source)];
    for (key, value) in texts {
        if let Some(value) = value {
            entries.push((format!("general.{key}"), Entry::String(value.clone())));
        }
    }
    entries.push(("tealight.source.sha256".into(), Entry::String(weights_sha256.into())));
    entries
}

/// The sha256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let bytes = tealight_core::mmap::map_file(path)?;
    Ok(Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect())
}
