//! Finds the file or folder of a model by its name. Places are searched in this order:
//!
//! 1. the path itself, if the operator gives one (a request cannot),
//! 2. `TEALIGHT_MODEL_DIR`,
//! 3. `models/` in the binary's folder and its three parent folders, and in the function's package,
//! 4. `/opt/models`, where Lambda extracts layers,
//! 5. the cache of the Hugging Face hub,
//! 6. the hub itself, if `TEALIGHT_DOWNLOAD` allows it.
//!
//! Requests can only name models in the folders 2 to 4, and the configured default models.

use super::{catalog, hub};
use crate::config::Config;
use std::path::{Path, PathBuf};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Where Lambda extracts the models of a layer.
const LAYER_MODELS: &str = "/opt/models";
/// Number of folders that are searched, from that of the binary upward: enough for `target/lambda/tealight/bootstrap` in a
/// repository.
const BUILD_TREE_DEPTH: usize = 4;
/// Extensions of model files.
const EXTENSIONS: [&str; 2] = ["gguf", "bin"];

/// The existing folders of models, in search order.
pub fn folders(config: &Config) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = config.model_dir.iter().cloned().collect();
    if let Ok(binary) = std::env::current_exe() {
        folders.extend(binary.ancestors().skip(1).take(BUILD_TREE_DEPTH).map(|f| f.join("models")));
    }
    folders.extend(config.task_root.iter().map(|root| root.join("models")));
    folders.push(LAYER_MODELS.into());
    folders.retain(|f| f.is_dir());
    folders
}

/// The model of this name in one of the folders: `NAME.gguf`, `NAME.bin` of whisper.cpp or llama2.c, or a folder `NAME` with a
/// `config.json`.
fn installed(config: &Config, name: &str) -> Option<PathBuf> {
    // A model of the same name by another organization is a different model.
    let short = catalog::names(name).map_or(name, |(short, _)| short);
    if !is_file_name(short) {
        return None;
    }
    folders(config).iter().find_map(|folder| {
        let files = EXTENSIONS.map(|extension| folder.join(format!("{short}.{extension}")));
        let subfolder = folder.join(short);
        files
            .into_iter()
            .find(|file| file.is_file())
            .or_else(|| subfolder.join("config.json").is_file().then_some(subfolder))
    })
}

/// Whether a name is a single path component, so that it cannot leave the folder.
fn is_file_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed)
}

/// Sorted names of all models in the folders.
pub fn list(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = folders(config)
        .iter()
        .filter_map(|folder| folder.read_dir().ok())
        .flatten()
        .filter_map(|entry| model_name(&entry.ok()?.path()))
        .collect();
    names.sort();
    names.dedup();
    names
}

fn model_name(path: &Path) -> Option<String> {
    let is_model = path.is_file() && path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known));
    let name = if is_model { path.file_stem() } else { path.file_name() }?;
    let is_model_folder = path.join("config.json").is_file();
    let name = name.to_str().filter(|name| is_file_name(name))?;
    (is_model || is_model_folder).then(|| name.to_string())
}

/// The path of a model that a request names, which must be in one of the folders.
///
/// # Errors
/// [`ErrorKind::ModelNotFound`].
pub fn resolve_installed(config: &Config, name: &str) -> Result<PathBuf> {
    installed(config, name).ok_or_else(|| {
        not_found(format!("model {:?} is not installed; see GET /v1/models", truncate_for_display(name)))
    })
}

/// The name on the hub of a model of the catalog; any other name as it is.
fn hub_name(name: &str) -> &str {
    catalog::names(name).map_or(name, |(_, hub_name)| hub_name)
}

/// The path of a model that the operator names, if it is on this machine: a path, an installed model, or one in the hub's cache.
pub fn local_path(config: &Config, name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.is_file() || path.is_dir() {
        return Some(path.to_path_buf());
    }
    let cached = || Some(hub_name(name)).filter(|name| hub::is_hub_name(name)).and_then(hub::cached);
    installed(config, name).or_else(cached)
}

/// The path of a model that the operator names. Downloads the model if necessary and allowed.
///
/// # Errors
/// [`ErrorKind::ModelNotFound`]; the errors of [`hub::pull`].
pub fn resolve_any(config: &Config, name: &str) -> Result<PathBuf> {
    if let Some(path) = local_path(config, name) {
        return Ok(path);
    }
    let hub_name = hub_name(name);
    if !hub::is_hub_name(hub_name) {
        let message = "is not a file, an installed model, a catalog name or a hub repository";
        return Err(not_found(format!("model {:?} {message}", truncate_for_display(name))));
    }
    if config.download {
        return hub::pull(hub_name, &mut hub::NoProgress);
    }
    let name = truncate_for_display(name);
    Err(not_found(format!("model {name:?} is not downloaded; run `tealight pull {name}` or set TEALIGHT_DOWNLOAD=1")))
}

fn not_found(message: String) -> Error {
    Error::new(ErrorKind::ModelNotFound, message).with_param("model")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_folder(folder: &Path) -> Config {
        Config::from_lookup(|n| (n == "TEALIGHT_MODEL_DIR").then(|| folder.display().to_string())).unwrap()
    }

    #[test]
    fn model_in_model_dir_is_found_by_short_name_and_repository() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("all-MiniLM-L6-v2.gguf");
        std::fs::write(&file, "x").unwrap();
        let config = with_folder(folder.path());
        for name in ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"] {
            assert_eq!(resolve_installed(&config, name).unwrap(), file);
        }
        assert!(list(&config).contains(&"all-MiniLM-L6-v2".to_string()));
    }

    #[test]
    fn path_in_request_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret.gguf"), "x").unwrap();
        let inner = folder.path().join("models");
        std::fs::create_dir(&inner).unwrap();
        let config = with_folder(&inner);
        let outside = folder.path().join("secret.gguf").display().to_string();
        for name in ["../secret", "..", ".", "", "a/../../secret", &outside, "sec\0ret"] {
            assert_eq!(resolve_installed(&config, name).unwrap_err().kind, ErrorKind::ModelNotFound, "{name:?}");
        }
    }
}
