//! The tensors of a model as a packed file stores them.

use super::tensor::TensorData;
use std::sync::{Mutex, PoisonError};

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
