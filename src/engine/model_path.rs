//! Where a model is found, in the order of looking.
//!
//! 1. a path, if the operator (never a request) gives one; 2. `TEALIGHT_MODEL_DIR`; 3. `models/` beside the binary, or
//!    above it in its build tree, or in the function's package; 4. `/opt/models`, where a Lambda layer puts it; 5. the
//!    cache of the Hugging Face hub; 6. where allowed, the hub itself.

use super::{catalog, hub};
use crate::config::Config;
use std::path::{Path, PathBuf};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// The folder that a Lambda layer unpacks to.
const LAYER: &str = "/opt/models";
/// `target/lambda/tealight/bootstrap` is four folders below the project.
const BUILD_TREE_DEPTH: usize = 4;
/// Of files that are models.
const EXTENSIONS: [&str; 2] = ["gguf", "bin"];

/// The folders that hold models, in the order of looking.
pub fn folders(config: &Config) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = config.model_dir.iter().cloned().collect();
    if let Ok(binary) = std::env::current_exe() {
        folders.extend(binary.ancestors().skip(1).take(BUILD_TREE_DEPTH).map(|f| f.join("models")));
    }
    folders.extend(config.task_root.iter().map(|root| root.join("models")));
    folders.push(LAYER.into());
    folders.retain(|f| f.is_dir());
    folders
}

/// A model of this name in one of the folders: `NAME.gguf`, whisper.cpp's `NAME.bin`, or a folder `NAME` with a `config.json`.
fn installed(config: &Config, name: &str) -> Option<PathBuf> {
    // Another organisation's model of the same name is another model.
    let short = catalog::known(name).map_or(name, |(short, _)| short);
    if !is_plain(short) {
        return None;
    }
    folders(config).iter().find_map(|folder| {
        let files = EXTENSIONS.map(|extension| folder.join(format!("{short}.{extension}")));
        let sub = folder.join(short);
        files.into_iter().find(|file| file.is_file()).or_else(|| sub.join("config.json").is_file().then_some(sub))
    })
}

/// Whether a name cannot lead out of a folder.
fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed)
}

/// The names of all models in the folders, sorted.
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
    let found = is_model || path.join("config.json").is_file();
    let name = name.to_str().filter(|name| is_plain(name))?;
    found.then(|| name.to_string())
}

/// The path of a model that a request names: one of the installed, and nothing else.
pub fn resolve_installed(config: &Config, name: &str) -> Result<PathBuf> {
    installed(config, name).ok_or_else(|| not_found(name, "models that are installed can be asked for by name"))
}

/// Where a model is on the hub, if it is there.
fn repository(name: &str) -> &str {
    catalog::known(name).map_or(name, |(_, repository)| repository)
}

/// The path of a model that the operator names, if it is on this machine.
pub fn local_path(config: &Config, name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.is_file() || path.is_dir() {
        return Some(path.to_path_buf());
    }
    let cached = || Some(repository(name)).filter(|r| hub::is_repository(r)).and_then(hub::cached);
    installed(config, name).or_else(cached)
}

/// The path of a model that the operator names: a path, or a name looked for everywhere.
pub fn resolve_any(config: &Config, name: &str) -> Result<PathBuf> {
    if let Some(path) = local_path(config, name) {
        return Ok(path);
    }
    let repository = repository(name);
    if !hub::is_repository(repository) {
        return Err(not_found(name, "no such file, installed model or model of the catalog"));
    }
    if config.download {
        return hub::pull(repository, &mut hub::NoProgress);
    }
    Err(not_found(
        name,
        "it is not in the hub cache; `tealight pull` gets it, or TEALIGHT_DOWNLOAD=1 allows it at run time",
    ))
}

fn not_found(name: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::ModelNotFound,
        format!("the model {:?} does not exist here: {why}", truncate_for_display(name)),
    )
    .with_param("model")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_folder(folder: &Path) -> Config {
        Config::from_lookup(|n| (n == "TEALIGHT_MODEL_DIR").then(|| folder.display().to_string())).unwrap()
    }

    #[test]
    fn the_models_folder_comes_first_and_by_short_name() {
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
    fn a_request_cannot_name_a_path() {
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
