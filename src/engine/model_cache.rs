//! Models in memory: each is loaded once, when it is first used, and again after a failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tealight_core::Result;
use tealight_models::Embedder;

/// A model in memory.
#[derive(Debug)]
pub struct LoadedModel<M = Embedder> {
    /// The name that clients use.
    pub name: String,
    /// The model, ready to run.
    pub model: M,
    /// The file or folder that it was loaded from.
    pub path: PathBuf,
    /// How long loading took.
    pub load_time: Duration,
}

/// The lock is held while the model is being loaded, so that concurrent requests wait for the same load.
type Entry<M> = Arc<Mutex<Option<Arc<LoadedModel<M>>>>>;

/// Models of one type by name.
#[derive(Debug)]
pub(super) struct ModelCache<M>(Mutex<BTreeMap<String, Entry<M>>>);

impl<M> Default for ModelCache<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M> ModelCache<M> {
    /// A model, if it is in memory; never waits.
    pub fn peek(&self, name: &str) -> Option<Arc<LoadedModel<M>>> {
        let entry = lock(&self.0).get(name)?.clone();
        entry.try_lock().ok()?.clone()
    }

    /// Names and load times of the models in memory.
    pub fn load_times(&self) -> Vec<(String, Duration)> {
        let names: Vec<String> = lock(&self.0).keys().cloned().collect();
        names.into_iter().filter_map(|name| self.peek(&name).map(|loaded| (name, loaded.load_time))).collect()
    }

    /// The model of this name, and how long the caller waited for it to be loaded: by this call, or by another one that was under
    /// way. `path` finds the model's file; it and `load` are called only if the model is not in memory.
    pub fn get_or_load(
        &self,
        name: String,
        path: impl FnOnce() -> Result<PathBuf>,
        load: impl FnOnce(&Path) -> Result<M>,
    ) -> Result<(Arc<LoadedModel<M>>, Duration)> {
        let entry = lock(&self.0).entry(name.clone()).or_default().clone();
        let start = Instant::now();
        let mut entry = lock(&entry);
        if let Some(loaded) = entry.as_ref() {
            return Ok((loaded.clone(), start.elapsed()));
        }
        let start = Instant::now();
        let path = path()?;
        let model = load(&path)?;
        let load_time = start.elapsed();
        tracing::info!(model = name, load_ms = load_time.as_millis() as u64, "model loaded");
        let loaded = Arc::new(LoadedModel { name, model, path, load_time });
        *entry = Some(loaded.clone());
        Ok((loaded, load_time))
    }
}

/// Locks a mutex even after a panic in another thread: the guarded value is only replaced, never modified in
/// place.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
