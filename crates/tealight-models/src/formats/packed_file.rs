//! The common parts of the packed files of all architectures. A packed file is a GGUF file whose matrices have the layout of the
//! kernels, so that they are used in place.

use super::gguf::MetadataValue;
use sha2::{Digest, Sha256};
use std::path::Path;
use tealight_core::Result;

/// Metadata of a packed file that its source may not have.
#[derive(Debug, Clone, Default)]
pub struct PackMetadata {
    /// `general.name`.
    pub name: Option<String>,
    /// `general.license`, an SPDX identifier.
    pub license: Option<String>,
    /// `general.source.url`.
    pub source: Option<String>,
}

/// Metadata of every packed file: architecture, origin, and the hash of the source weights.
pub(crate) fn general_metadata(
    architecture: &str,
    metadata: &PackMetadata,
    weights_sha256: &str,
) -> Vec<(String, MetadataValue)> {
    let mut values = vec![("general.architecture".to_string(), MetadataValue::String(architecture.into()))];
    let origin = [("name", &metadata.name), ("license", &metadata.license), ("source.url", &metadata.source)];
    for (key, value) in origin {
        if let Some(value) = value {
            values.push((format!("general.{key}"), MetadataValue::String(value.clone())));
        }
    }
    values.push(("tealight.source.sha256".into(), MetadataValue::String(weights_sha256.into())));
    values
}

/// The sha256 of a file, in hexadecimal.
///
/// # Errors
/// The file cannot be read, or is empty.
pub fn sha256(path: &Path) -> Result<String> {
    let bytes = tealight_core::mmap::map_file(path)?;
    Ok(Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect())
}
