//! Writes packed files.

use super::decoder::{Decoder, EMBED_TOKENS};
use super::encoder::Encoder;
use super::model_files::{HEADER_KEY, ModelFiles, PackedHeader, TOKEN_BYTES, TOKEN_OFFSETS};
use crate::families::WHISPER as ARCHITECTURE;
use crate::formats::gguf::{self, MetadataValue};
use crate::formats::packed_file::{PackMetadata, general_metadata, sha256};
use crate::formats::tensor::TensorData;
use crate::formats::weights::packed_name;
use std::path::Path;
use tealight_core::files::write_atomic;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// Packs a model into `output`: matrices as int8 in kernel layout, other tensors as f32, in the order of use. The same input gives
/// the same bytes.
///
/// # Errors
/// The model cannot be loaded or is packed already, or the file cannot be written.
pub fn pack(cpu: &CpuContext, source: &Path, metadata: &PackMetadata, output: &Path) -> Result<()> {
    let file = ModelFiles::open(source, true)?;
    if file.loader.weights.packed(EMBED_TOKENS).is_some() {
        let error = Error::invalid_model("the model is packed already");
        return Err(error.with_context(format_args!("model {}", source.display())));
    }
    // With one thread, tensors are recorded in the same order every time.
    let cpu = cpu.single_threaded();
    Encoder::new(&cpu, &file.config, &file.loader)?;
    Decoder::new(&cpu, &file.config, &file.loader)?;
    let ModelFiles { config, tokenizer, loader, weights_path } = file;
    let mut tensors = loader.into_tensors();
    let (token_bytes, token_offsets) = tokenizer.to_bytes_and_offsets();
    for (name, bytes) in [(TOKEN_BYTES, token_bytes), (TOKEN_OFFSETS, token_offsets)] {
        tensors.push((packed_name(name), TensorData::from_bytes(bytes)));
    }
    let hash = sha256(&weights_path)?;
    let header = PackedHeader { config, special: tokenizer.special, languages: tokenizer.languages };
    let header =
        serde_json::to_string(&header).map_err(|e| Error::internal(format!("cannot serialize the header: {e}")))?;
    let mut metadata = general_metadata(ARCHITECTURE, metadata, &hash);
    metadata.push((HEADER_KEY.into(), MetadataValue::String(header)));
    write_atomic(output, |out| gguf::write(out, &metadata, &tensors))
}
