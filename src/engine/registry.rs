//! Models by name, each loaded when it is first used.

use super::catalog;
use super::model_cache::{LoadedModel, ModelCache};
use super::model_path;
use super::model_task::ModelTask;
use crate::config::Config;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tealight_core::{Error, Result, truncate_for_display};
use tealight_kernels::CpuContext;
use tealight_models::Embedder;
#[cfg(feature = "speech")]
use tealight_models::families::whisper::Whisper;
#[cfg(feature = "text")]
use tealight_models::tasks::generate::Generator;

/// The name by which OpenAI's clients request the default speech-to-text model.
pub const OPENAI_SPEECH: &str = "whisper-1";

/// A model, and how long the caller waited for it to be loaded.
pub type ModelAndWait<M> = (Arc<LoadedModel<M>>, Duration);

/// The models of a process.
#[derive(Debug)]
pub struct Registry {
    pub(super) config: Arc<Config>,
    pub(super) cpu: CpuContext,
    pub(super) caches: ModelCaches,
}

/// The models of each task in memory.
#[derive(Debug, Default)]
pub(super) struct ModelCaches {
    embedders: ModelCache<Embedder>,
    #[cfg(feature = "speech")]
    pub(super) speech: ModelCache<Whisper>,
    #[cfg(feature = "text")]
    pub(super) text: ModelCache<Generator>,
}

impl ModelCaches {
    fn by_task(&self) -> impl IntoIterator<Item = (ModelTask, &dyn AnyModelCache)> {
        [
            (ModelTask::Embedding, &self.embedders as &dyn AnyModelCache),
            #[cfg(feature = "speech")]
            (ModelTask::Speech, &self.speech),
            #[cfg(feature = "text")]
            (ModelTask::Text, &self.text),
        ]
    }
}

/// A type of model that the registry loads.
pub(super) trait ServedModel: Sized {
    const TASK: ModelTask;

    fn cache(registry: &Registry) -> &ModelCache<Self>;

    /// Loads the file or folder of the model that is served as `name`.
    fn load(registry: &Registry, name: &str, path: &Path) -> Result<Self>;

    /// What is only known once the model is loaded.
    fn details(&self) -> ModelDetails;
}

/// What a loaded model says about itself.
#[derive(Debug, Default)]
pub(super) struct ModelDetails {
    /// Dimension of its embeddings.
    pub dimension: Option<usize>,
    /// Maximum tokens per input.
    pub max_tokens: Option<usize>,
    /// The license that its file states, in any spelling.
    pub license: Option<String>,
}

/// A [`ModelCache`] of any type of model.
trait AnyModelCache {
    fn load_times(&self) -> Vec<(String, Duration)>;

    /// Load time and details of a model, if it is in memory.
    fn details(&self, name: &str) -> Option<(Duration, ModelDetails)>;
}

impl<M: ServedModel> AnyModelCache for ModelCache<M> {
    fn load_times(&self) -> Vec<(String, Duration)> {
        self.load_times()
    }

    fn details(&self, name: &str) -> Option<(Duration, ModelDetails)> {
        self.peek(name).map(|loaded| (loaded.load_time, loaded.model.details()))
    }
}

impl ServedModel for Embedder {
    const TASK: ModelTask = ModelTask::Embedding;

    fn cache(registry: &Registry) -> &ModelCache<Self> {
        &registry.caches.embedders
    }

    fn load(registry: &Registry, name: &str, path: &Path) -> Result<Self> {
        let config = &registry.config;
        let mut model = match ModelTask::detect(path) {
            #[cfg(feature = "text")]
            ModelTask::Text => registry.embedder_of_text_model(name, path)?,
            _ => Embedder::load(&registry.cpu, path, config.precision)?,
        };
        model.pipeline.pooling = config.pooling.unwrap_or(model.pipeline.pooling);
        if model.pipeline.prompts.is_empty() {
            let prompts = catalog::find_embedding_model(name).map_or(&[][..], |e| e.prompts);
            model.pipeline.prompts = prompts.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        }
        Ok(model)
    }

    fn details(&self) -> ModelDetails {
        ModelDetails {
            dimension: Some(self.dimension()),
            max_tokens: Some(self.max_tokens()),
            license: self.info.license.clone(),
        }
    }
}

/// Which model a request means.
enum Selection {
    /// The default model of this task.
    Default(ModelTask),
    /// An installed model: the name that clients use, and its path.
    Installed(String, PathBuf),
}

impl Registry {
    /// A registry that has loaded nothing yet.
    pub fn new(config: Arc<Config>, cpu: CpuContext) -> Self {
        Self { config, cpu, caches: ModelCaches::default() }
    }

    /// The embedding model of this name, or the default one. Loads it if necessary.
    ///
    /// # Errors
    /// [`ModelNotFound`](tealight_core::ErrorKind::ModelNotFound), [`ModelLoad`](tealight_core::ErrorKind::ModelLoad);
    /// [`InvalidValue`](tealight_core::ErrorKind::InvalidValue) of `model` if the model is for another task.
    pub fn embedder(&self, name: Option<&str>) -> Result<ModelAndWait<Embedder>> {
        self.get(name)
    }

    /// The model of this name, or the default one of the task. Loads it if necessary.
    pub(super) fn get<M: ServedModel>(&self, name: Option<&str>) -> Result<ModelAndWait<M>> {
        match self.select(M::TASK, name)? {
            Selection::Default(task) => {
                let path = || model_path::resolve_any(&self.config, self.configured(task));
                self.get_or_load(self.default_name(task), path)
            }
            Selection::Installed(name, path) => {
                let checked = || check_task(&name, &path, M::TASK).map(|()| path.clone());
                self.get_or_load(name.clone(), checked)
            }
        }
    }

    pub(super) fn get_or_load<M: ServedModel>(
        &self,
        name: String,
        path: impl FnOnce() -> Result<PathBuf>,
    ) -> Result<ModelAndWait<M>> {
        M::cache(self).get_or_load(name.clone(), path, |path| M::load(self, &name, path))
    }

    /// The model that a request for `task` means by `name`.
    fn select(&self, task: ModelTask, name: Option<&str>) -> Result<Selection> {
        let Some(name) = name.filter(|name| !self.is_default(task, name)) else {
            return Ok(Selection::Default(task));
        };
        if task == ModelTask::Embedding && self.is_default(ModelTask::Text, name) {
            return Ok(Selection::Default(ModelTask::Text));
        }
        // If the speech model cannot be loaded, the name is looked up among the installed models, so that the error is "not installed"
        // and not "wrong task".
        if task == ModelTask::Embedding && self.is_default(ModelTask::Speech, name) && self.can_load(ModelTask::Speech)
        {
            return Err(wrong_task(name, task));
        }
        let path = model_path::resolve_installed(&self.config, name)?;
        Ok(Selection::Installed(catalog::short_name(name).to_string(), path))
    }

    /// The configured default model of a task: a name or a path.
    pub(super) fn configured(&self, task: ModelTask) -> &str {
        match task {
            ModelTask::Embedding => &self.config.model,
            ModelTask::Speech => &self.config.speech_model,
            ModelTask::Text => &self.config.text_model,
        }
    }

    /// The name by which clients can request the default model of a task.
    pub fn default_name(&self, task: ModelTask) -> String {
        let configured = self.configured(task);
        // Speech and text models that are configured by path keep every extension but `.gguf` in their name, because clients
        // already use these names.
        if task == ModelTask::Embedding
            && let Some(stem) = existing_file_stem(configured)
        {
            return stem.to_string();
        }
        catalog::short_name(configured).to_string()
    }

    /// Whether `name` means the default model of a task.
    fn is_default(&self, task: ModelTask, name: &str) -> bool {
        let default = self.default_name(task);
        name == self.configured(task)
            || match task {
                ModelTask::Embedding => {
                    let known = catalog::find_embedding_model(name).map_or(name, |e| e.name);
                    known == default || self.config.served_names.iter().any(|n| n == name)
                }
                ModelTask::Speech => name == OPENAI_SPEECH || catalog::short_name(name) == default,
                ModelTask::Text => catalog::short_name(name) == default,
            }
    }

    /// Whether the default model of a task is on this machine, or may be downloaded.
    fn can_load(&self, task: ModelTask) -> bool {
        task.is_enabled()
            && (self.config.download || model_path::local_path(&self.config, self.configured(task)).is_some())
    }

    /// The names that clients can use: the default embedding model, the default models of the other tasks if they are available,
    /// and all installed models.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.default_name(ModelTask::Embedding)];
        if self.can_load(ModelTask::Speech) {
            names.extend([self.default_name(ModelTask::Speech), OPENAI_SPEECH.into()]);
        }
        if self.can_load(ModelTask::Text) {
            names.push(self.default_name(ModelTask::Text));
        }
        let installed = model_path::list(&self.config);
        let others: Vec<_> = installed.into_iter().filter(|n| !names.contains(n)).collect();
        names.extend(others);
        names
    }

    /// The name by which a model is listed, for any name that clients can use. Does not load the model.
    ///
    /// # Errors
    /// [`ModelNotFound`](tealight_core::ErrorKind::ModelNotFound).
    pub fn resolve(&self, name: &str) -> Result<String> {
        if self.is_default(ModelTask::Embedding, name) {
            return Ok(self.default_name(ModelTask::Embedding));
        }
        if name == OPENAI_SPEECH && self.can_load(ModelTask::Speech) {
            return Ok(OPENAI_SPEECH.into());
        }
        for task in [ModelTask::Speech, ModelTask::Text] {
            if self.is_default(task, name) && self.can_load(task) {
                return Ok(self.default_name(task));
            }
        }
        model_path::resolve_installed(&self.config, name).map(|_| catalog::short_name(name).to_string())
    }

    /// Load times of the models in memory. A text-generation model that also computes embeddings is listed for both tasks.
    pub fn load_times(&self) -> Vec<(ModelTask, String, Duration)> {
        let with_task = |(task, models): (ModelTask, &dyn AnyModelCache)| {
            models.load_times().into_iter().map(move |(name, time)| (task, name, time))
        };
        self.caches.by_task().into_iter().flat_map(with_task).collect()
    }

    /// Load time and details of a model, if it is in memory.
    pub(super) fn details(&self, task: ModelTask, name: &str) -> Option<(Duration, ModelDetails)> {
        self.caches.by_task().into_iter().find(|(t, _)| *t == task).and_then(|(_, models)| models.details(name))
    }
}

/// The file name without extension, if `path` exists.
fn existing_file_stem(path: &str) -> Option<&str> {
    let path = Path::new(path);
    path.exists().then(|| path.file_stem()?.to_str()).flatten()
}

/// Fails if the model is for another task.
fn check_task(name: &str, path: &Path, task: ModelTask) -> Result<()> {
    match (task, ModelTask::detect(path)) {
        (ModelTask::Embedding, ModelTask::Text) => Ok(()),
        (task, detected) if task == detected => Ok(()),
        _ => Err(wrong_task(name, task)),
    }
}

fn wrong_task(name: &str, task: ModelTask) -> Error {
    let expected = match task {
        ModelTask::Embedding => "an embedding model",
        ModelTask::Speech => "a speech-to-text model",
        ModelTask::Text => "a text-generation model",
    };
    Error::invalid_value("model", format!("model {:?} is not {expected}", truncate_for_display(name)))
}
