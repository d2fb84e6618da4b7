//! Lists the models that requests can name, without loading them.

use super::model_task::ModelTask;
use super::registry::Registry;
use super::{catalog, model_path};
use std::path::Path;
use std::time::Duration;

/// A model that requests can name: one that is installed in a folder, or a default model in the hub's cache.
#[derive(Debug, Clone)]
pub struct InstalledModel {
    /// The name that clients use.
    pub name: String,
    /// The task that the model is for.
    pub task: ModelTask,
    /// Whether requests for this task that name no model use it.
    pub is_default: bool,
    /// Total size of the model's files.
    pub bytes: Option<u64>,
    /// SPDX identifier of the license, if the catalog or the model file states one.
    pub license: Option<String>,
    /// How long loading took; `None` if the model is not in memory.
    pub load_time: Option<Duration>,
    /// Dimension of its embeddings; known from the catalog, or once the model is loaded.
    pub dimension: Option<usize>,
    /// Maximum tokens per input; known from the catalog, or once the model is loaded.
    pub max_tokens: Option<usize>,
}

impl InstalledModel {
    /// A model that is not loaded.
    fn new(name: String, task: ModelTask, is_default: bool, path: &Path) -> Self {
        let info = catalog::info(&name).unwrap_or_default();
        Self {
            task,
            is_default,
            bytes: size_in_bytes(path),
            license: info.license.map(String::from),
            load_time: None,
            dimension: info.dimension,
            max_tokens: info.max_tokens,
            name,
        }
    }
}

impl Registry {
    /// The models that requests can name: the default models first, then all other installed ones.
    pub fn installed(&self) -> Vec<InstalledModel> {
        let config = &self.config;
        let default = |task| {
            let path = model_path::local_path(config, self.configured(task))?;
            Some(InstalledModel::new(self.default_name(task), task, true, &path))
        };
        let tasks = [ModelTask::Embedding, ModelTask::Speech, ModelTask::Text].into_iter().filter(|t| t.is_enabled());
        let mut models: Vec<InstalledModel> = tasks.filter_map(default).collect();
        for name in model_path::list(config) {
            let is_new = !models.iter().any(|model| model.name == name);
            if let Some(path) = model_path::local_path(config, &name).filter(|_| is_new) {
                models.push(InstalledModel::new(name, ModelTask::detect(&path), false, &path));
            }
        }
        models.iter_mut().for_each(|model| self.add_loaded_details(model));
        models
    }

    /// Adds the fields that only a loaded model knows.
    fn add_loaded_details(&self, model: &mut InstalledModel) {
        let Some((load_time, details)) = self.details(model.task, &model.name) else { return };
        model.load_time = Some(load_time);
        model.dimension = details.dimension.or(model.dimension);
        model.max_tokens = details.max_tokens.or(model.max_tokens);
        // The catalog's identifiers are SPDX's; model files use any spelling.
        model.license = model.license.take().or(details.license);
    }
}

/// The size of a file, or of the files directly in a folder.
fn size_in_bytes(path: &Path) -> Option<u64> {
    let length = |path: &Path| path.metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
    length(path).or_else(|| Some(path.read_dir().ok()?.filter_map(|entry| length(&entry.ok()?.path())).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::Engine;

    #[test]
    fn default_model_is_listed_before_and_after_loading() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
        let engine =
            Engine::new(Config::from_lookup(|n| (n == "TEALIGHT_MODEL_DIR").then(|| folder.into())).unwrap()).unwrap();
        let first = |engine: &Engine| engine.registry.installed().remove(0);
        let model = first(&engine);
        assert_eq!(
            (model.name.as_str(), model.task, model.is_default),
            ("all-MiniLM-L6-v2", ModelTask::Embedding, true)
        );
        assert_eq!(model.bytes, Path::new(folder).join("all-MiniLM-L6-v2.gguf").metadata().ok().map(|m| m.len()));
        assert_eq!((model.license.as_deref(), model.load_time), (Some("Apache-2.0"), None));
        engine.preload().unwrap();
        let model = first(&engine);
        assert!(
            model.load_time.is_some() && model.dimension == Some(384) && model.max_tokens == Some(256),
            "{model:?}"
        );
    }
}
