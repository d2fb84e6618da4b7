//! The constructors of [`Embedder`]: a BERT model from its files, or a text-generation model that is already loaded.

use crate::detect::Architecture;
use crate::families::bert::{Bert, ModelFiles};
#[cfg(feature = "text")]
use crate::families::llama::{Llama, LlamaEncoder};
use crate::formats::weights::Precision;
use crate::tasks::embed::Embedder;
use std::path::Path;
use tealight_core::Result;
use tealight_kernels::CpuContext;
use tracing::trace_span;

impl Embedder {
    /// Loads a BERT model from a GGUF file or a folder of sentence-transformers.
    ///
    /// # Errors
    /// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind) and [`ErrorKind::Io`](tealight_core::ErrorKind), with the path of the
    /// model and the reason.
    pub fn load(cpu: &CpuContext, path: &Path, precision: Precision) -> Result<Self> {
        let loaded = ModelFiles::open(path, precision).and_then(|files| {
            let _span = trace_span!("network").entered();
            let encoder = Bert::new(cpu, files.config, &files.weights)?;
            Self::new(Box::new(encoder), files.tokenizer, files.pipeline, files.info)
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
