//! The common parts of the packed files of all architectures. A packed file is a GGUF file whose matrices have the layout of the
//! kernels, so that they are used in place.

use super::gguf::MetadataValue;
use super::tensor::TensorData;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
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
pub fn sha256(path: &Path) -> Result<String> {
    let bytes = tealight_core::mmap::map_file(path)?;
    Ok(Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect())
}

/// Records the tensors that a network is built from, in the order of use, if a packed file is to be written.
#[derive(Debug)]
pub(crate) struct TensorRecorder(Option<Mutex<Vec<(String, TensorData)>>>);

impl TensorRecorder {
    pub(crate) fn new(record_tensors: bool) -> Self {
        Self(record_tensors.then(Mutex::default))
    }

    pub(crate) fn record(&self, name: String, tensor: impl FnOnce() -> TensorData) {
        if let Some(tensors) = &self.0 {
            tensors.lock().unwrap_or_else(PoisonError::into_inner).push((name, tensor()));
        }
    }

    /// The recorded tensors, in the order of use.
    pub(crate) fn into_tensors(self) -> Vec<(String, TensorData)> {
        self.0.map_or_else(Vec::new, |tensors| tensors.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
