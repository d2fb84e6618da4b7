//! The constructors of [`Embedder`]: an encoder from its files, or a text-generation model that is already loaded.

use crate::detect::Architecture;
use crate::families::encoder::{EncoderFamily, ModelFiles};
#[cfg(feature = "text")]
use crate::families::llama::{Llama, LlamaEncoder};
use crate::formats::weights::{Precision, Weights};
use crate::int8::Int8Encoder;
use crate::spec::EncoderSpec;
use crate::tasks::embed::Embedder;
use crate::text_encoder::TextEncoder;
use std::path::Path;
use tealight_core::Result;
#[cfg(not(feature = "reference"))]
use tealight_core::{Error, ErrorKind};
use tealight_kernels::CpuContext;
use tracing::trace_span;

impl Embedder {
    /// Loads an encoder from a GGUF file or a folder of sentence-transformers.
    ///
    /// # Errors
    /// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind) and [`ErrorKind::Io`](tealight_core::ErrorKind), with the path of the
    /// model and the reason.
    pub fn load(cpu: &CpuContext, path: &Path, precision: Precision) -> Result<Self> {
        let loaded = ModelFiles::open(path).and_then(|files| {
            let _span = trace_span!("network").entered();
            let encoder: Box<dyn TextEncoder> = match precision {
                Precision::Int8 => Box::new(Int8Encoder::new(cpu, files.spec, &files.weights)?),
                Precision::F32 => reference(files.family, files.spec, &files.weights)?,
            };
            Self::new(encoder, files.tokenizer, files.pipeline, files.info)
        });
        loaded.map_err(|e| {
            // An architecture that this build lacks is the better explanation.
            let disabled = Architecture::detect(path).ok().and_then(|architecture| architecture.check_enabled().err());
            disabled.unwrap_or(e).with_context(format_args!("model {}", path.display()))
        })
    }

    /// Uses a text-generation model for embeddings; the weights are shared.
    ///
    /// # Errors
    /// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind): the tokenizer does not fit the weights.
    #[cfg(feature = "text")]
    pub fn from_llama(model: std::sync::Arc<Llama>) -> Result<Self> {
        let (tokenizer, pipeline, info) = (model.tokenizer.for_embedding(), model.pipeline.clone(), model.info.clone());
        Self::new(Box::new(LlamaEncoder(model)), tokenizer, pipeline, info)
    }
}

#[cfg(feature = "reference")]
fn reference(family: &'static EncoderFamily, spec: EncoderSpec, weights: &Weights) -> Result<Box<dyn TextEncoder>> {
    Ok(Box::new(crate::reference::ReferenceEncoder::new(family, spec, weights)?))
}

#[cfg(not(feature = "reference"))]
fn reference(_: &'static EncoderFamily, _: EncoderSpec, _: &Weights) -> Result<Box<dyn TextEncoder>> {
    Err(Error::feature_disabled(ErrorKind::ModelLoad, "models in float32", "reference"))
}
