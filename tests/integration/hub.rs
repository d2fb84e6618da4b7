//! Downloads from the Hugging Face hub: runs the real binary against a mock hub.

use crate::support::http::{Message, Mock, MockResponse, unused_address};
use crate::support::lambda_runtime::Function;
use crate::support::process::{CommandOutput, run, tealight};
use crate::support::server::Server;
use crate::support::{TINY, floats, path};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const REPOSITORY: &str = "org/tiny";
const WEIGHTS: &str = "model.safetensors";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NEXT_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

/// The repository on the mock hub, and its faults.
#[derive(Clone, Default)]
struct Contents {
    commit: &'static str,
    files: BTreeMap<String, Vec<u8>>,
    /// Changes a bit in the content of this file.
    corrupted: Option<&'static str>,
    /// Closes the connection after half of this file.
    interrupted: Option<&'static str>,
}

impl Contents {
    /// The files of the tiny model.
    fn tiny() -> Self {
        let mut this = Self { commit: COMMIT, ..Self::default() };
        this.add(&path(TINY), "");
        this
    }

    fn add(&mut self, folder: &Path, prefix: &str) {
        for entry in folder.read_dir().unwrap() {
            let entry = entry.unwrap().path();
            let name = format!("{prefix}{}", entry.file_name().unwrap().to_str().unwrap());
            if entry.is_dir() {
                self.add(&entry, &format!("{name}/"));
            } else {
                self.files.insert(name, std::fs::read(&entry).unwrap());
            }
        }
    }

    fn without(mut self, file: &str) -> Self {
        self.files.remove(file).unwrap();
        self
    }

    fn respond(&self, request: &Message) -> MockResponse {
        let path = request.path().trim_start_matches('/');
        let known = |prefix: String| path.strip_prefix(&prefix).and_then(|f| self.files.get_key_value(f));
        // A commit can be requested by its branch or by its hash.
        for revision in ["main", self.commit] {
            if path == format!("api/models/{REPOSITORY}/revision/{revision}") {
                return self.listing();
            }
            if let Some((name, bytes)) = known(format!("{REPOSITORY}/resolve/{revision}/")) {
                return self.resolve(request, name, bytes);
            }
        }
        match known("cdn/".into()) {
            Some((name, bytes)) => self.content(request, name, bytes),
            None => {
                MockResponse::new(404, r#"{"error":"Repository not found"}"#).header("x-error-code", "RepoNotFound")
            }
        }
    }

    fn listing(&self) -> MockResponse {
        let siblings: Vec<_> = self.files.keys().map(|f| json!({"rfilename": f})).collect();
        let body = json!({"id": REPOSITORY, "sha": self.commit, "private": false, "siblings": siblings});
        MockResponse::new(200, body.to_string()).header("content-type", "application/json")
    }

    /// Large files are redirected to a CDN, and their metadata is in the redirection. Small files are sent directly.
    fn resolve(&self, request: &Message, name: &str, bytes: &[u8]) -> MockResponse {
        if !name.ends_with(".safetensors") {
            // The ETag of a small file is its git hash; any 40 digits work here.
            let etag = &sha256(bytes)[..40];
            return self.content(request, name, bytes).header("etag", format!("\"{etag}\""));
        }
        let host = request.header("host").unwrap();
        MockResponse::new(302, "")
            .header("location", format!("http://{host}/cdn/{name}"))
            .header("x-repo-commit", self.commit)
            .header("x-linked-size", bytes.len())
            .header("x-linked-etag", format!("\"{}\"", sha256(bytes)))
            .header("etag", "\"redirection\"")
    }

    fn content(&self, request: &Message, name: &str, bytes: &[u8]) -> MockResponse {
        let mut bytes = bytes.to_vec();
        if self.corrupted == Some(name) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        let (first, last) = range(request, bytes.len());
        let mut response = MockResponse::new(206, &bytes[first..last])
            .header("x-repo-commit", self.commit)
            .header("accept-ranges", "bytes")
            .header("content-range", format!("bytes {first}-{}/{}", last.saturating_sub(1), bytes.len()));
        // Requests for the size are not interrupted.
        if self.interrupted == Some(name) && response.body.len() > 1 {
            response.close_after = Some(response.body.len() / 2);
        }
        response
    }
}

/// The byte range of a request; the end is exclusive.
fn range(request: &Message, length: usize) -> (usize, usize) {
    let Some((first, last)) = request.header("range").and_then(|r| r.strip_prefix("bytes=")?.split_once('-')) else {
        return (0, length);
    };
    let last = last.parse::<usize>().map_or(length, |n| length.min(n + 1));
    (first.parse::<usize>().unwrap().min(last), last)
}

/// A mock hub, and a home directory with an empty cache.
struct Hub {
    mock: Mock,
    contents: Arc<Mutex<Contents>>,
    home: TempDir,
}

impl Hub {
    fn new(contents: Contents) -> Self {
        let contents = Arc::new(Mutex::new(contents));
        let served = contents.clone();
        let mock = Mock::start(move |request| served.lock().unwrap().clone().respond(request));
        Self { mock, contents, home: tempfile::tempdir().unwrap() }
    }

    fn set_contents(&self, contents: Contents) {
        *self.contents.lock().unwrap() = contents;
    }

    fn home(&self) -> &str {
        self.home.path().to_str().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = tealight(args.iter().copied());
        command.env("HF_HOME", self.home()).env("HF_ENDPOINT", self.mock.url());
        command
    }

    fn pull(&self) -> CommandOutput {
        run(&mut self.command(&["pull", REPOSITORY]))
    }

    /// Embeds with the model in the cache, while the hub is unreachable.
    fn embed(&self) -> CommandOutput {
        run(self
            .command(&["embed", "--model", REPOSITORY, "hi"])
            .env("HF_ENDPOINT", format!("http://{}", unused_address())))
    }

    /// Paths of requests for file contents, without redirections and requests for the size only.
    fn downloads(&self) -> Vec<String> {
        let is_download = |m: &Message| {
            let path = m.path();
            let is_file = path.contains("/cdn/") || path.contains("/resolve/") && !path.ends_with(".safetensors");
            is_file && m.header("range") != Some("bytes=0-0")
        };
        self.mock.requests().iter().filter(|m| is_download(m)).map(|m| m.path().to_string()).collect()
    }

    /// Checks that the cache has no usable model.
    #[track_caller]
    fn check_no_model(&self) {
        let message = self.embed().expect_failure();
        assert!(message.contains("is not downloaded") && message.contains("tealight pull"), "{message}");
    }

    /// Checks that the model in the cache is the tiny model.
    #[track_caller]
    fn check_model(&self) {
        assert_eq!(self.embed().expect_text(), expected());
    }
}

/// The embedding by the tiny model, loaded from its folder.
fn expected() -> String {
    run(&mut tealight(["embed", "--model", TINY, "hi"])).expect_text()
}

#[test]
fn pulled_model_works_offline() {
    let hub = Hub::new(Contents::tiny());
    hub.check_no_model();
    let folder = hub.pull().expect_text();
    let folder = Path::new(folder.trim_end());
    assert!(folder.starts_with(hub.home.path()) && folder.join(WEIGHTS).is_file(), "{folder:?}");
    hub.check_model();
    let downloads = hub.downloads();
    for file in ["/cdn/model.safetensors", "/cdn/2_Dense/model.safetensors"] {
        assert_eq!(downloads.iter().filter(|d| *d == file).count(), 1, "{downloads:?}");
    }
}

#[test]
fn second_pull_downloads_nothing() {
    let hub = Hub::new(Contents::tiny());
    let first = hub.pull().expect_text();
    let downloads = hub.downloads();
    assert_eq!(hub.pull().expect_text(), first);
    assert_eq!(hub.downloads(), downloads);
}

#[test]
fn missing_model_is_downloaded_only_if_allowed() {
    let hub = Hub::new(Contents::tiny());
    let message = run(&mut hub.command(&["embed", "--model", REPOSITORY, "hi"])).expect_failure();
    assert!(message.contains("tealight pull") && message.contains("TEALIGHT_DOWNLOAD=1"), "{message}");
    assert_eq!(hub.mock.requests().len(), 0, "the hub was contacted although downloads are disabled");

    let done = run(hub.command(&["embed", "--model", REPOSITORY, "hi"]).env("TEALIGHT_DOWNLOAD", "1"));
    assert_eq!(done.expect_text(), expected());
    hub.check_model();
}

#[test]
fn lambda_function_downloads_configured_model_if_allowed() {
    let hub = Hub::new(Contents::tiny());
    let endpoint = hub.mock.url();
    let variables = [("TEALIGHT_MODEL", REPOSITORY), ("TEALIGHT_DOWNLOAD", "1"), ("HF_HOME", hub.home())];
    let function = Function::start(&[&variables[..], &[("HF_ENDPOINT", &endpoint)]].concat());
    let response = function.expect_success(r#"{"input":"hi"}"#);
    assert_eq!(floats(&response["data"][0]["embedding"]), serde_json::from_str::<Vec<f32>>(&expected()).unwrap());
}

#[test]
fn request_does_not_cause_download() {
    let hub = Hub::new(Contents::tiny());
    let endpoint = hub.mock.url();
    let server =
        Server::start(&[("TEALIGHT_DOWNLOAD", "1"), ("HF_HOME", hub.home()), ("HF_ENDPOINT", endpoint.as_str())]);
    let response = server.post("/v1/embeddings", format!(r#"{{"input":"a","model":"{REPOSITORY}"}}"#));
    assert_eq!(response.status(), 404, "{}", response.text());
    assert_eq!(hub.mock.requests().len(), 0);
}

#[test]
fn weights_with_wrong_checksum_are_rejected_and_deleted() {
    for file in [WEIGHTS, "2_Dense/model.safetensors"] {
        let damaged = Contents { corrupted: Some(file), ..Contents::tiny() };
        let good = &damaged.files[file];
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        let (expected, found) = (sha256(good), sha256(&bad));

        let hub = Hub::new(damaged.clone());
        let message = hub.pull().expect_failure();
        assert!(message.contains(&expected) && message.contains(&found), "{message}");
        hub.check_no_model();
        hub.set_contents(Contents::tiny());
        hub.pull().expect_success();
        hub.check_model();
    }
}

#[test]
fn interrupted_download_is_resumed() {
    for file in [WEIGHTS, "2_Dense/model.safetensors", "tokenizer.json", "config.json"] {
        let hub = Hub::new(Contents { interrupted: Some(file), ..Contents::tiny() });
        let message = hub.pull().expect_failure();
        assert!(message.contains(file), "{message}");
        hub.check_no_model();
        // The second attempt is interrupted again, at a later position.
        hub.pull().expect_failure();
        hub.check_no_model();
        hub.set_contents(Contents::tiny());
        hub.pull().expect_success();
        hub.check_model();
    }
}

/// The first half of a model comes from one commit; the rest must not come from the next.
#[test]
fn repository_changed_between_attempts_is_downloaded_from_one_commit() {
    let hub = Hub::new(Contents { interrupted: Some(WEIGHTS), ..Contents::tiny() });
    hub.pull().expect_failure();
    hub.set_contents(Contents { commit: NEXT_COMMIT, ..Contents::tiny() });
    hub.pull().expect_success();
    hub.check_model();
}

/// Tools that do not support sentence-transformers skip its files, without which the embeddings differ.
#[test]
fn incomplete_cache_of_other_tools_is_not_used() {
    let hub = Hub::new(Contents::tiny());
    let snapshot = hub.pull().expect_text();
    let snapshot = Path::new(snapshot.trim_end());
    for entry in snapshot.read_dir().unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", WEIGHTS].contains(&name.as_str()) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            std::fs::remove_dir_all(entry.path()).unwrap();
        } else {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let message = hub.embed().expect_failure();
    assert!(message.contains("tealight pull"), "{message}");
    hub.pull().expect_success();
    hub.check_model();
}

/// The process was killed after the last byte and before the file was renamed, so nothing remains to be downloaded.
#[test]
fn complete_but_unnamed_download_is_finished() {
    let contents = Contents::tiny();
    let weights = &contents.files[WEIGHTS];
    let hub = Hub::new(contents.clone());
    let blobs = hub.home.path().join("hub/models--org--tiny/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{}.part", sha256(weights))), weights).unwrap();
    hub.pull().expect_success();
    hub.check_model();
}

#[test]
fn repository_without_safetensors_is_rejected() {
    let mut contents = Contents::tiny().without(WEIGHTS);
    contents.files.insert("pytorch_model.bin".into(), vec![0; 100]);
    let hub = Hub::new(contents);
    let message = hub.pull().expect_failure();
    assert!(message.contains(REPOSITORY) && message.contains(WEIGHTS), "{message}");
    assert_eq!(hub.downloads(), [""; 0]);
    hub.check_no_model();
}

#[test]
fn unknown_repository_is_named_in_error() {
    let hub = Hub::new(Contents::tiny());
    let message = run(&mut hub.command(&["pull", "org/other"])).expect_failure();
    assert!(message.contains("org/other") && message.contains("404"), "{message}");
}

#[test]
fn unreachable_hub_is_reported() {
    let hub = Hub::new(Contents::tiny());
    let mut pull = hub.command(&["pull", REPOSITORY]);
    let message = run(pull.env("HF_ENDPOINT", format!("http://{}", unused_address()))).expect_failure();
    assert!(message.contains(REPOSITORY) && message.contains("hub"), "{message}");
    hub.check_no_model();
}

#[test]
fn server_file_list_cannot_write_outside_cache() {
    let mut contents = Contents::tiny();
    let outside = "2_Dense/../../../../../escaped/config.json";
    contents.files.insert(outside.into(), b"{}".to_vec());
    let hub = Hub::new(contents);
    let _ = hub.pull();
    assert!(!hub.home.path().join("escaped").exists(), "{outside} was written");
    let downloads = hub.downloads();
    assert!(!downloads.iter().any(|d| d.contains("escaped")), "{downloads:?}");
}
