//! Writes a model as one GGUF file that is used in place.

use super::model_files::{CONFIG_KEY, ModelFiles};
use super::network::{EMBED_TOKENS, Network};
use crate::families::LLAMA as ARCHITECTURE;
use crate::formats::gguf::{self, MetadataValue};
use crate::formats::packed_file::{PackMetadata, general_metadata, sha256};
use std::path::Path;
use tealight_core::files::write_atomic;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// Packs a model into `output`: matrices in 4 or 8 bits in the layout of the kernels, tensors in the order of use. Equal input
/// gives equal bytes.
///
/// # Errors
/// The model cannot be loaded or is packed already, or the file cannot be written.
pub fn pack(cpu: &CpuContext, source: &Path, metadata: &PackMetadata, output: &Path) -> Result<()> {
    let with_path = |e: Error| e.with_context(format_args!("model {}", source.display()));
    let files = ModelFiles::open(source, true).map_err(with_path)?;
    if files.loader.weights.packed(EMBED_TOKENS).is_some() {
        return Err(with_path(Error::invalid_model("the model is packed already")));
    }
    // A single thread, so that the tensors are recorded in a fixed order.
    Network::new(&cpu.single_threaded(), &files.config, &files.loader).map_err(with_path)?;
    let config = serde_json::to_string(&files.config)
        .map_err(|e| Error::internal(format!("cannot serialize the hyperparameters: {e}")))?;
    let mut values = general_metadata(ARCHITECTURE, metadata, &sha256(&files.weights_path)?);
    values.push((CONFIG_KEY.into(), MetadataValue::String(config)));
    values.extend(files.pipeline.gguf_metadata(ARCHITECTURE));
    values.extend(files.tokenizer_metadata);
    let mut tensors = files.loader.into_tensors();
    tensors.extend(files.pipeline.tensors());
    write_atomic(output, |out| gguf::write(out, &values, &tensors))
}
