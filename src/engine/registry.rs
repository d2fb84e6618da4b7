//! Models in memory: each loaded once, when first asked for, and tried again after a failure.

use super::{catalog, model_path};
use crate::config::Config;
use crate::telemetry::log;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tealight_core::{Error, Result, truncate_for_display};
use tealight_kernels::CpuContext;
use tealight_models::Embedder;
use tealight_models::families::llama::{Llama, is_llama};
use tealight_models::families::whisper::{Whisper, is_whisper};

/// A model in memory.
#[derive(Debug)]
pub struct LoadedModel<M = Embedder> {
    /// The name it is served by.
    pub name: String,
    /// The model.
    pub model: M,
    /// Where it was.
    pub path: PathBuf,
    /// How long loading took.
    pub load_time: Duration,
}

/// One model's place: the lock is held while it loads, so that others wait for that load.
type Slot<M> = Arc<Mutex<Option<Arc<LoadedModel<M>>>>>;

/// Models of one kind by their names.
#[derive(Debug)]
pub(super) struct Slots<M>(Mutex<BTreeMap<String, Slot<M>>>);

/// The models of a process.
#[derive(Debug)]
pub struct Registry {
    pub(super) config: Arc<Config>,
    cpu: CpuContext,
    pub(super) embedders: Slots<Embedder>,
    pub(super) speech: Slots<Whisper>,
    pub(super) text: Slots<Arc<Llama>>,
}

/// A lock that a panic elsewhere cannot close for good: what it guards is replaced whole, never half.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M> Default for Slots<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M> Slots<M> {
    /// A model, if it is in memory already; never waits.
    pub fn peek(&self, name: &str) -> Option<Arc<LoadedModel<M>>> {
        let slot = lock(&self.0).get(name)?.clone();
        slot.try_lock().ok()?.clone()
    }

    pub fn load_times(&self) -> Vec<(String, Duration)> {
        let names: Vec<String> = lock(&self.0).keys().cloned().collect();
        names.into_iter().filter_map(|name| self.peek(&name).map(|loaded| (name, loaded.load_time))).collect()
    }

    fn get_or_load(
        &self,
        name: String,
        path: impl FnOnce() -> Result<PathBuf>,
        load: impl FnOnce(&Path) -> Result<M>,
    ) -> Result<Arc<LoadedModel<M>>> {
        let slot = lock(&self.0).entry(name.clone()).or_default().clone();
        let start = Instant::now();
        let mut place = lock(&slot);
        if let Some(loaded) = place.as_ref() {
            log::add_loading(start.elapsed());
            return Ok(loaded.clone());
        }
        let start = Instant::now();
        let path = path()?;
        let model = load(&path)?;
        let load_time = start.elapsed();
        log::add_loading(load_time);
        tracing::info!(model = name, load_ms = load_time.as_millis() as u64, "model loaded");
        let loaded = Arc::new(LoadedModel { name, model, path, load_time });
        *place = Some(loaded.clone());
        Ok(loaded)
    }
}

/// A model that a request names, and that is of another kind than its route.
fn other_kind(name: &str, what: &str) -> Error {
    Error::invalid_value("model", format!("the model {:?} {what}", truncate_for_display(name)))
}

/// The name by which OpenAI's clients ask for speech to text.
pub const OPENAI_SPEECH: &str = "whisper-1";

impl Registry {
    /// An empty registry; nothing is loaded.
    pub fn new(config: Arc<Config>, cpu: CpuContext) -> Self {
        Self { config, cpu, embedders: Slots::default(), speech: Slots::default(), text: Slots::default() }
    }

    /// The name by which the default model is served.
    pub fn default_name(&self) -> String {
        let path = Path::new(&self.config.model);
        let stem = if path.exists() { path.file_stem().and_then(|s| s.to_str()) } else { None };
        stem.unwrap_or_else(|| catalog::short_name(&self.config.model)).to_string()
    }

    fn is_speech(&self, name: &str) -> bool {
        let config = &self.config.speech_model;
        name == OPENAI_SPEECH || name == config || catalog::short_name(name) == self.speech_name()
    }

    fn is_text(&self, name: &str) -> bool {
        name == self.config.text_model || catalog::short_name(name) == self.text_name()
    }

    fn is_default(&self, name: &str) -> bool {
        let default = self.default_name();
        let known = catalog::find(name).map_or(name, |e| e.name);
        name == self.config.model || known == default || self.config.served_names.iter().any(|n| n == name)
    }

    /// The model that a request names, or the default one; loads it if need be, waiting for a load under way.
    pub fn embedder(&self, name: Option<&str>) -> Result<Arc<LoadedModel>> {
        match name.filter(|n| !self.is_default(n)) {
            None => self.load(self.default_name(), || model_path::resolve_any(&self.config, &self.config.model)),
            Some(name) if self.is_text(name) => {
                self.load(self.text_name(), || model_path::resolve_any(&self.config, &self.config.text_model))
            }
            Some(name) if self.is_speech(name) && self.can_load(&self.config.speech_model) => {
                Err(other_kind(name, "makes no vectors of texts"))
            }
            Some(name) => {
                let path = model_path::resolve_installed(&self.config, name)?;
                let loaded = self.load(catalog::short_name(name).to_string(), || Ok(path.clone()));
                loaded.map_err(|e| if is_whisper(&path) { other_kind(name, "makes no vectors of texts") } else { e })
            }
        }
    }

    fn load(&self, name: String, path: impl FnOnce() -> Result<PathBuf>) -> Result<Arc<LoadedModel>> {
        let prompts = catalog::find(&name).map_or(&[][..], |e| e.prompts);
        self.embedders.get_or_load(name.clone(), path, |path| {
            let mut model = match Embedder::load(&self.cpu, path, self.config.precision) {
                // A model that writes makes vectors, too, from the same memory.
                Err(_) if is_llama(path) => {
                    let load = |path: &Path| Llama::load(&self.cpu, path).map(Arc::new);
                    Embedder::of_llama(self.text.get_or_load(name, || Ok(path.into()), load)?.model.clone())?
                }
                loaded => loaded?,
            };
            model.pipeline.pooling = self.config.pooling.unwrap_or(model.pipeline.pooling);
            if model.pipeline.prompts.is_empty() {
                model.pipeline.prompts =
                    prompts.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
            }
            Ok(model)
        })
    }

    /// The name by which the default speech model is served, besides [`OPENAI_SPEECH`].
    pub fn speech_name(&self) -> String {
        catalog::short_name(&self.config.speech_model).to_string()
    }

    /// The speech model that a request names, or the default one; loads it if need be.
    pub fn speech_model(&self, name: Option<&str>) -> Result<Arc<LoadedModel<Whisper>>> {
        let default = self.speech_name();
        let load = |path: &Path| Whisper::load(&self.cpu, path);
        match name.filter(|n| !self.is_speech(n)) {
            None => self.speech.get_or_load(
                default,
                || model_path::resolve_any(&self.config, &self.config.speech_model),
                load,
            ),
            Some(name) => {
                let path = model_path::resolve_installed(&self.config, name)?;
                let loaded = self.speech.get_or_load(catalog::short_name(name).to_string(), || Ok(path.clone()), load);
                loaded.map_err(|e| if is_whisper(&path) { e } else { other_kind(name, "does not hear") })
            }
        }
    }

    /// The name by which the default model that writes is served.
    pub fn text_name(&self) -> String {
        catalog::short_name(&self.config.text_model).to_string()
    }

    /// The model that a request names, or the default one, to write; loads it if need be.
    pub fn text_model(&self, name: Option<&str>) -> Result<Arc<LoadedModel<Arc<Llama>>>> {
        let default = self.text_name();
        let load = |path: &Path| Llama::load(&self.cpu, path).map(Arc::new);
        match name.filter(|n| !self.is_text(n)) {
            None => {
                self.text.get_or_load(default, || model_path::resolve_any(&self.config, &self.config.text_model), load)
            }
            Some(name) => {
                let path = model_path::resolve_installed(&self.config, name)?;
                let loaded = self.text.get_or_load(catalog::short_name(name).to_string(), || Ok(path.clone()), load);
                loaded.map_err(|e| if is_llama(&path) { e } else { other_kind(name, "does not write text") })
            }
        }
    }

    /// The names that requests can use: the default first, then those that hear and write, if they are here, then what is
    /// installed.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.default_name()];
        if self.can_load(&self.config.speech_model) {
            names.extend([self.speech_name(), OPENAI_SPEECH.into()]);
        }
        if self.can_load(&self.config.text_model) {
            names.push(self.text_name());
        }
        let installed = model_path::list(&self.config);
        let others: Vec<_> = installed.into_iter().filter(|n| !names.contains(n)).collect();
        names.extend(others);
        names
    }

    /// Whether one of the default models is here, or may be downloaded.
    fn can_load(&self, name: &str) -> bool {
        self.config.download || model_path::local_path(&self.config, name).is_some()
    }

    /// The name by which a model that a request names is served, without loading it.
    pub fn resolve(&self, name: &str) -> Result<String> {
        match name {
            name if self.is_default(name) => Ok(self.default_name()),
            OPENAI_SPEECH if self.can_load(&self.config.speech_model) => Ok(OPENAI_SPEECH.into()),
            name if self.is_speech(name) && self.can_load(&self.config.speech_model) => Ok(self.speech_name()),
            name if self.is_text(name) && self.can_load(&self.config.text_model) => Ok(self.text_name()),
            name => model_path::resolve_installed(&self.config, name).map(|_| catalog::short_name(name).to_string()),
        }
    }
}
