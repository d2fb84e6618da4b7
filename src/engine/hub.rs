//! The Hugging Face hub: its cache on this machine, and downloads into it.
//!
//! `hf-hub` reads `HF_HOME` and `HF_ENDPOINT` and its token as everyone's tools do.

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::path::{Path, PathBuf};
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::pack::sha256;

/// What a folder needs to be a model, weights last, so that a model with weights is whole.
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

/// Weights in CTranslate2's format: of faster-whisper's models.
const CTRANSLATE2: &str = "model.bin";

/// A repository, and the one file of it that is meant where there are many: `ORGANISATION/NAME:FILE.gguf`.
fn parts(name: &str) -> (&str, Option<&str>) {
    name.split_once(':').map_or((name, None), |(repository, file)| (repository, Some(file)))
}

/// Whether a name can be one of the hub: `ORGANISATION/NAME`, or of a file there: `ORGANISATION/NAME:FILE.gguf`.
pub fn is_repository(name: &str) -> bool {
    let (name, file) = parts(name);
    if let Some(file) = file {
        let plain = file.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !file.starts_with('.');
        return plain && file.ends_with(".gguf") && is_repository(name);
    }
    let plain = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
    };
    name.split_once('/').is_some_and(|(organisation, name)| plain(organisation) && plain(name))
        && !name.ends_with(".gguf")
}

/// In a snapshot that [`pull`] has completed.
const COMPLETE_MARKER: &str = ".tealight-whole";

/// The snapshot of a repository in the hub's cache, if it is whole; or a file of it.
pub fn cached(repository: &str) -> Option<PathBuf> {
    if let (repository, Some(file)) = parts(repository) {
        return Cache::from_env().model(repository.to_string()).get(file);
    }
    let cache = Cache::from_env().model(repository.to_string());
    let weights = cache.get("model.safetensors").or_else(|| cache.get(CTRANSLATE2))?;
    weights.parent().filter(|folder| is_whole(folder)).map(Path::to_path_buf)
}

/// Other tools fetch only what they need. Without the parts that `modules.json` names a model gives other vectors, and
/// without `modules.json` only who has seen the repository knows whether it has one.
fn is_whole(folder: &Path) -> bool {
    let is_speech = folder.join(CTRANSLATE2).is_file();
    if folder.join(COMPLETE_MARKER).is_file() || is_speech && folder.join("tokenizer.json").is_file() {
        return true;
    }
    let modules = std::fs::read(folder.join("modules.json")).ok();
    let modules: Option<Vec<serde_json::Value>> = modules.and_then(|text| serde_json::from_slice(&text).ok());
    let is_there = |module: &serde_json::Value| {
        let (kind, path) = (module["type"].as_str().unwrap_or_default(), module["path"].as_str().unwrap_or_default());
        kind.ends_with("Normalize") || folder.join(path).join("config.json").is_file()
    };
    modules.is_some_and(|m| m.iter().all(is_there))
}

/// Hears how a download goes.
pub trait DownloadProgress {
    /// A file of `bytes` bytes begins.
    fn start(&mut self, file: &str, bytes: u64);
    /// So many more bytes have come.
    fn advance(&mut self, bytes: u64);
    /// The file is there.
    fn finish(&mut self);
}

/// Hears nothing.
#[derive(Debug)]
pub struct NoProgress;

impl DownloadProgress for NoProgress {
    fn start(&mut self, _: &str, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}
}

struct Forward<'a>(&'a mut dyn DownloadProgress);

impl Progress for Forward<'_> {
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

/// Downloads what is missing of a repository, checks it, and returns its snapshot; or one file of it, and returns that.
///
/// # Errors
/// [`ErrorKind::ModelNotFound`] where the hub has no such repository or it has no safetensors; [`ErrorKind::Upstream`] where the
/// hub cannot be reached or a file does not have the sha256 that the hub gives for it.
pub fn pull(repository: &str, progress: &mut dyn DownloadProgress) -> Result<PathBuf> {
    if !is_repository(repository) {
        let forms = "ORGANISATION/NAME or ORGANISATION/NAME:FILE.gguf";
        let message = format!("{repository:?} is neither in the catalog nor a repository: {forms}");
        return Err(Error::new(ErrorKind::ModelNotFound, message).with_param("model"));
    }
    let (repository, file) = parts(repository);
    let api = ApiBuilder::from_env().build().map_err(|e| failed(repository, &e))?;
    let info = api.model(repository.to_string()).info().map_err(|e| failed(repository, &e))?;
    let there: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
    let has = |file: &str| there.iter().any(|f| f == file);
    if let Some(file) = file {
        return download_file(&api, repository, &info.sha, file, has(file), progress);
    }
    if !has("model.safetensors") && !has(CTRANSLATE2) {
        let message = format!("the repository {repository:?} has neither model.safetensors nor {CTRANSLATE2}");
        return Err(Error::new(ErrorKind::ModelNotFound, message).with_param("model"));
    }
    // One commit for all files, whatever the hub is given meanwhile; `main` is set when all are there.
    let repo = api.repo(Repo::with_revision(repository.to_string(), RepoType::Model, info.sha.clone()));
    let cache = Cache::from_env().model(repository.to_string());
    let folder = cache.pointer_path(&info.sha);
    let dense = |f: &&String| is_dense_part(f);
    let first: Vec<&str> = there.iter().filter(dense).map(String::as_str).collect();
    let wanted = MODEL_FILES.into_iter().filter(|w| has(w) && (*w != CTRANSLATE2 || !has("model.safetensors")));
    for file in first.into_iter().chain(wanted) {
        fetch(&repo, &folder, repository, file, progress)?;
    }
    std::fs::write(folder.join(COMPLETE_MARKER), "").map_err(|e| Error::io("write", &folder, e))?;
    cache.create_ref(&info.sha).map_err(|e| Error::io("write", &folder, e))?;
    Ok(folder)
}

/// One file of a commit.
fn download_file(
    api: &Api,
    repository: &str,
    commit: &str,
    file: &str,
    there: bool,
    progress: &mut dyn DownloadProgress,
) -> Result<PathBuf> {
    if !there {
        let message = format!("the repository {repository:?} has no file {file:?}");
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
    // Exactly one folder deep: the list is the server's, and must not lead out of the cache.
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
        .download_with_progress(file, Forward(progress))
        .map_err(|e| failed(&format!("{repository}/{file}"), &e))?;
    verify(&path)
}

/// Checks a large file against its name in the cache, which is the sha256 that the hub gave for it.
fn verify(path: &Path) -> Result<()> {
    let blob = path.canonicalize().map_err(|e| Error::io("find", path, e))?;
    let name = blob.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let is_sha256 = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_sha256 {
        return Ok(());
    }
    let found = sha256(&blob)?;
    if found == name {
        return Ok(());
    }
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_file(&blob);
    Err(Error::new(
        ErrorKind::Upstream,
        format!("{} arrived damaged: its sha256 is {found}, the hub says {name}", path.display()),
    ))
}

fn failed(what: &str, error: &ApiError) -> Error {
    // The hub says 401 for what does not exist as well as for what is private.
    let missing = matches!(error, ApiError::RequestError(e) if matches!(**e, ureq::Error::StatusCode(401 | 404)));
    let kind = if missing { ErrorKind::ModelNotFound } else { ErrorKind::Upstream };
    Error::new(kind, format!("cannot get {what} from the hub: {error}")).with_param("model")
}
