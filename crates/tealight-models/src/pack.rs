//! Packs models of every architecture.

use crate::detect::Architecture;
use crate::families::encoder;
#[cfg(feature = "text")]
use crate::families::llama;
#[cfg(feature = "speech")]
use crate::families::whisper;
use std::path::Path;
use tealight_core::Result;
use tealight_kernels::CpuContext;

pub use crate::formats::packed_file::{PackMetadata, sha256};

/// Quantizes a model and writes it to `output` as one GGUF file that is used in place. Equal input gives equal bytes on
/// one instruction set.
///
/// `calibration` has one text per line, whose activations scale the channels of an embedding model (SmoothQuant); there are
/// default texts. Other architectures do not use it.
///
/// # Errors
/// The model cannot be loaded, is packed already or cannot be packed, or the file cannot be written.
pub fn pack(
    cpu: &CpuContext,
    source: &Path,
    metadata: &PackMetadata,
    calibration: Option<&str>,
    output: &Path,
) -> Result<()> {
    match Architecture::detect(source)? {
        Architecture::Encoder => encoder::pack(cpu, source, metadata, calibration, output),
        #[cfg(feature = "text")]
        Architecture::Llama => llama::pack(cpu, source, metadata, output),
        #[cfg(feature = "speech")]
        Architecture::Whisper => whisper::pack(cpu, source, metadata, output),
        #[cfg(not(all(feature = "speech", feature = "text")))]
        disabled => disabled.check_enabled(),
    }
}
