//! The Hugging Face hub: its cache on this machine, and downloads into the cache.
//!
//! As in other tools, `HF_HOME`, `HF_ENDPOINT` and the token file configure the hub; the crate `hf-hub` reads them.

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::path::{Path, PathBuf};
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::pack::sha256;

/// Files of a model folder. Weights are last, so that they are present only if all other files are.
const MODEL_FILES: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "model.safetensors",
    CTRANSLATE2,
];

/// Weights in CTranslate2's format, as faster-whisper's models have them.
const CTRANSLATE2: &str = "model.bin";

/// Splits `ORG/NAME:FILE.gguf` into repository and file, for repositories with several models.
fn split_file(name: &str) -> (&str, Option<&str>) {
    name.split_once(':').map_or((name, None), |(repository, file)| (repository, Some(file)))
}

/// Whether a name has the form of a repository, `ORG/NAME`, or of a file in one, `ORG/NAME:FILE.gguf`.
pub fn is_hub_name(name: &str) -> bool {
    let (name, file) = split_file(name);
    if let Some(file) = file {
        let plain = file.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !file.starts_with('.');
        return plain && file.ends_with(".gguf") && is_hub_name(name);
    }
    let is_plain = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
    };
    name.split_once('/').is_some_and(|(organization, name)| is_plain(organization) && is_plain(name))
        && !name.ends_with(".gguf")
}

/// Empty file that marks a snapshot that [`pull`] has completed. The name does not change, because caches contain it.
const COMPLETE_MARKER: &str = ".tealight-whole";

/// The snapshot of a repository in the hub's cache if it is complete, or a file of it.
pub fn cached(hub_name: &str) -> Option<PathBuf> {
    let (repository, file) = split_file(hub_name);
    let cache = Cache::from_env().model(repository.to_string());
    if let Some(file) = file {
        return cache.get(file);
    }
    let weights = cache.get("model.safetensors").or_else(|| cache.get(CTRANSLATE2))?;
    weights.parent().filter(|folder| is_complete(folder)).map(Path::to_path_buf)
}

/// Whether a snapshot has all files of its model. Other tools download only some of them. If a module that
/// `modules.json` names is missing, the embeddings would differ. A folder without `modules.json` counts as incomplete, because only
/// the hub knows whether the repository has that file.
fn is_complete(folder: &Path) -> bool {
    let is_speech = folder.join(CTRANSLATE2).is_file();
    if folder.join(COMPLETE_MARKER).is_file() || is_speech && folder.join("tokenizer.json").is_file() {
        return true;
    }
    let modules = std::fs::read(folder.join("modules.json")).ok();
    let modules: Option<Vec<serde_json::Value>> = modules.and_then(|text| serde_json::from_slice(&text).ok());
    let is_present = |module: &serde_json::Value| {
        let (kind, path) = (module["type"].as_str().unwrap_or_default(), module["path"].as_str().unwrap_or_default());
        kind.ends_with("Normalize") || folder.join(path).join("config.json").is_file()
    };
    modules.is_some_and(|m| m.iter().all(is_present))
}

/// Receives the progress of a download.
pub trait DownloadProgress {
    /// The download of a file of this size starts.
    fn start(&mut self, file: &str, bytes: u64);
    /// This many more bytes have arrived.
    fn advance(&mut self, bytes: u64);
    /// The file is complete.
    fn finish(&mut self);
}

/// Ignores progress.
#[derive(Debug)]
pub struct NoProgress;

impl DownloadProgress for NoProgress {
    fn start(&mut self, _: &str, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}
}

/// Adapts [`DownloadProgress`] to `hf-hub`.
struct HubProgress<'a>(&'a mut dyn DownloadProgress);

impl Progress for HubProgress<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        self.0.start(filename, size as u64);
    }
    fn update(&mut self, size: usize) {
        self.0.advance(size as u64);
    }
    fn finish(&mut self) {
        self.0.finish();
    }
}

/// Downloads the missing files of a model and returns the folder of the snapshot; or one file, and returns its path. A downloaded
/// file is compared with its sha256 if the hub states one, as it does for large files.
///
/// # Errors
/// [`ErrorKind::ModelNotFound`]: the hub has no such repository, or the repository has no weights in a supported format;
/// [`ErrorKind::Upstream`]: the hub cannot be reached, or a file does not have the sha256 that the hub states.
pub fn pull(hub_name: &str, progress: &mut dyn DownloadProgress) -> Result<PathBuf> {
    if !is_hub_name(hub_name) {
        let message = format!("unknown model {hub_name:?}; expected a catalog name, ORG/NAME or ORG/NAME:FILE.gguf");
        return Err(Error::new(ErrorKind::ModelNotFound, message).with_param("model"));
    }
    let (repository, file) = split_file(hub_name);
    let api = ApiBuilder::from_env().build().map_err(|e| hub_error(repository, &e))?;
    let info = api.model(repository.to_string()).info().map_err(|e| hub_error(repository, &e))?;
    let files: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
    let has = |file: &str| files.iter().any(|f| f == file);
    if let Some(file) = file {
        return download_file(&api, repository, &info.sha, file, has(file), progress);
    }
    if !has("model.safetensors") && !has(CTRANSLATE2) {
        let message = format!("repository {repository:?} has neither model.safetensors nor {CTRANSLATE2}");
        return Err(Error::new(ErrorKind::ModelNotFound, message).with_param("model"));
    }
    // All files come from one commit, even if the repository changes meanwhile; `main` is updated when all have arrived.
    let repo = api.repo(Repo::with_revision(repository.to_string(), RepoType::Model, info.sha.clone()));
    let cache = Cache::from_env().model(repository.to_string());
    let folder = cache.pointer_path(&info.sha);
    let dense = |f: &&String| is_dense_part(f);
    let dense_files: Vec<&str> = files.iter().filter(dense).map(String::as_str).collect();
    let required = MODEL_FILES.into_iter().filter(|w| has(w) && (*w != CTRANSLATE2 || !has("model.safetensors")));
    for file in dense_files.into_iter().chain(required) {
        fetch(&repo, &folder, repository, file, progress)?;
    }
    std::fs::write(folder.join(COMPLETE_MARKER), "").map_err(|e| Error::io("write", &folder, e))?;
    cache.create_ref(&info.sha).map_err(|e| Error::io("write", &folder, e))?;
    Ok(folder)
}

/// Downloads one file of a commit.
fn download_file(
    api: &Api,
    repository: &str,
    commit: &str,
    file: &str,
    exists: bool,
    progress: &mut dyn DownloadProgress,
) -> Result<PathBuf> {
    if !exists {
        let message = format!("repository {repository:?} has no file {file:?}");
        return Err(Error::new(ErrorKind::ModelNotFound, message).with_param("model"));
    }
    let repo = api.repo(Repo::with_revision(repository.to_string(), RepoType::Model, commit.to_string()));
    let cache = Cache::from_env().model(repository.to_string());
    let folder = cache.pointer_path(commit);
    fetch(&repo, &folder, repository, file, progress)?;
    cache.create_ref(commit).map_err(|e| Error::io("write", &folder, e))?;
    Ok(folder.join(file))
}

fn is_dense_part(file: &str) -> bool {
    // Exactly one folder deep: the server's list of files must not lead out of the cache.
    match file.split_once('/') {
        Some((folder, "config.json" | "model.safetensors")) => folder.ends_with("_Dense"),
        _ => false,
    }
}

fn fetch(
    repo: &ApiRepo,
    folder: &Path,
    repository: &str,
    file: &str,
    progress: &mut dyn DownloadProgress,
) -> Result<()> {
    if folder.join(file).is_file() {
        return Ok(());
    }
    let path = repo
        .download_with_progress(file, HubProgress(progress))
        .map_err(|e| hub_error(&format!("{repository}/{file}"), &e))?;
    verify(&path)
}

/// Checks a file against its name in the cache, which for large files is the sha256 that the hub states.
fn verify(path: &Path) -> Result<()> {
    let blob = path.canonicalize().map_err(|e| Error::io("find", path, e))?;
    let name = blob.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let is_sha256 = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_sha256 {
        return Ok(());
    }
    let actual = sha256(&blob)?;
    if actual == name {
        return Ok(());
    }
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_file(&blob);
    Err(Error::new(
        ErrorKind::Upstream,
        format!("checksum mismatch for {}: sha256 {actual}, expected {name}; pull it again", path.display()),
    ))
}

fn hub_error(what: &str, error: &ApiError) -> Error {
    // The hub returns 401 both for private and for missing repositories.
    let missing = matches!(error, ApiError::RequestError(e) if matches!(**e, ureq::Error::StatusCode(401 | 404)));
    let kind = if missing { ErrorKind::ModelNotFound } else { ErrorKind::Upstream };
    Error::new(kind, format!("cannot download {what} from the hub: {error}")).with_param("model")
}
