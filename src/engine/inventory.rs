//! The models that are here, without loading any.

use super::registry::Registry;
use super::{catalog, model_path};
use std::path::Path;
use std::time::Duration;
use tealight_models::families::llama::is_llama;
use tealight_models::families::whisper::is_whisper;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelTask {
    /// It makes vectors of texts.
    Embedding,
    /// It hears.
    Speech,
    /// It writes.
    Text,
}

impl ModelTask {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            ModelTask::Embedding => "embedding",
            ModelTask::Speech => "speech",
            ModelTask::Text => "text",
        }
    }

    /// Of a file or folder.
    fn of(path: &Path) -> Self {
        match () {
            () if is_whisper(path) => ModelTask::Speech,
            () if is_llama(path) => ModelTask::Text,
            () => ModelTask::Embedding,
        }
    }
}

/// A model that is here.
#[derive(Debug, Clone)]
pub struct InstalledModel {
    /// The name that requests can use.
    pub name: String,
    /// What it is for.
    pub task: ModelTask,
    /// Whether requests that name none get it.
    pub is_default: bool,
    /// Of its files.
    pub bytes: Option<u64>,
    /// Its licence, as an SPDX name, where its files or the catalog tell it.
    pub license: Option<String>,
    /// How long loading took, if it is loaded.
    pub load_time: Option<Duration>,
    /// Values of a vector.
    pub dimension: Option<usize>,
    /// Of a text, at most.
    pub max_tokens: Option<usize>,
}

impl InstalledModel {
    /// What is known of a model that is not loaded.
    fn new(name: String, task: ModelTask, is_default: bool, path: &Path) -> Self {
        let info = catalog::info(&name).unwrap_or_default();
        Self {
            task,
            is_default,
            bytes: bytes(path),
            license: info.license.map(String::from),
            load_time: None,
            dimension: info.dimension,
            max_tokens: info.max_tokens,
            name,
        }
    }
}

impl Registry {
    /// The models that are here: the defaults first, then what is installed besides.
    pub fn installed(&self) -> Vec<InstalledModel> {
        let config = &self.config;
        let defaults = [
            (self.default_name(), &config.model, ModelTask::Embedding),
            (self.speech_name(), &config.speech_model, ModelTask::Speech),
            (self.text_name(), &config.text_model, ModelTask::Text),
        ];
        let default = |(name, given, task): (String, &String, ModelTask)| {
            model_path::local_path(config, given).map(|path| InstalledModel::new(name, task, true, &path))
        };
        let mut all: Vec<InstalledModel> = defaults.into_iter().filter_map(default).collect();
        for name in model_path::list(config) {
            let is_new = !all.iter().any(|here| here.name == name);
            if let Some(path) = model_path::local_path(config, &name).filter(|_| is_new) {
                all.push(InstalledModel::new(name, ModelTask::of(&path), false, &path));
            }
        }
        all.iter_mut().for_each(|here| self.complete(here));
        all
    }

    /// How long each model took to load that is in memory, and as what: one that writes may make vectors, too.
    pub fn load_times(&self) -> Vec<(ModelTask, String, Duration)> {
        let all = [
            (ModelTask::Embedding, self.embedders.load_times()),
            (ModelTask::Speech, self.speech.load_times()),
            (ModelTask::Text, self.text.load_times()),
        ];
        all.into_iter()
            .flat_map(|(task, times)| times.into_iter().map(move |(name, time)| (task, name, time)))
            .collect()
    }

    /// Adds what only the model itself tells, if it is loaded.
    fn complete(&self, here: &mut InstalledModel) {
        let license = match here.task {
            ModelTask::Embedding => self.embedders.peek(&here.name).and_then(|loaded| {
                here.load_time = Some(loaded.load_time);
                here.dimension = Some(loaded.model.dimension());
                here.max_tokens = Some(loaded.model.max_tokens());
                loaded.model.about.license.clone()
            }),
            ModelTask::Speech => {
                here.load_time = self.speech.peek(&here.name).map(|loaded| loaded.load_time);
                None
            }
            ModelTask::Text => self.text.peek(&here.name).and_then(|loaded| {
                here.load_time = Some(loaded.load_time);
                here.max_tokens = Some(loaded.model.config.context);
                loaded.model.about.license.clone()
            }),
        };
        // The catalog spells names as SPDX does, model files as their makers did.
        here.license = here.license.take().or(license);
    }
}

/// Of a file, or of the files of a folder.
fn bytes(path: &Path) -> Option<u64> {
    let length = |path: &Path| path.metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
    length(path).or_else(|| Some(path.read_dir().ok()?.filter_map(|entry| length(&entry.ok()?.path())).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::Engine;

    #[test]
    fn the_default_model_is_here_before_and_after_it_is_loaded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
        let engine =
            Engine::new(Config::from_lookup(|n| (n == "TEALIGHT_MODEL_DIR").then(|| folder.into())).unwrap()).unwrap();
        let first = |engine: &Engine| engine.registry.installed().remove(0);
        let here = first(&engine);
        assert_eq!((here.name.as_str(), here.task, here.is_default), ("all-MiniLM-L6-v2", ModelTask::Embedding, true));
        assert_eq!(here.bytes, Path::new(folder).join("all-MiniLM-L6-v2.gguf").metadata().ok().map(|m| m.len()));
        assert_eq!((here.license.as_deref(), here.load_time), (Some("Apache-2.0"), None));
        engine.preload().unwrap();
        let here = first(&engine);
        assert!(here.load_time.is_some() && here.dimension == Some(384) && here.max_tokens == Some(256), "{here:?}");
    }
}
