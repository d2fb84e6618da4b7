//! `GET /status`: the models that are here, what they run on, and what this process has done so far.

use super::context::{ApiResponse, RequestContext};
use super::metrics::{Totals, resident};
use super::route::ApiStyle;
use crate::engine::inventory::InstalledModel;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::SystemTime;
use tealight_core::Result;
use tealight_kernels::Isa;

/// The reply of `/status`. What is not known is null.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Status {
    version: &'static str,
    /// The instruction set of the kernels.
    isa: &'static str,
    /// Those that this CPU has.
    isas: Vec<&'static str>,
    /// Of a forward pass.
    threads: usize,
    /// Seconds since the process started.
    uptime_s: u64,
    /// Memory that the process has in use.
    memory_bytes: Option<u64>,
    limits: Limits,
    models: Vec<Model>,
    index: Option<IndexStatus>,
    requests: Totals,
}

/// What a request may have.
#[derive(Debug, Serialize, JsonSchema)]
struct Limits {
    /// Bytes of a body.
    body_bytes: usize,
    /// Bytes of a body with a recording.
    audio_bytes: usize,
    /// Inputs on text-embeddings-inference's routes.
    batch: usize,
}

/// A model that is here.
#[derive(Debug, Serialize, JsonSchema)]
struct Model {
    name: String,
    /// `embedding`, `speech` or `text`.
    kind: &'static str,
    /// Whether requests of its kind that name none get it.
    default: bool,
    loaded: bool,
    /// Of its files.
    bytes: Option<u64>,
    /// As an SPDX name.
    license: Option<String>,
    load_ms: Option<f64>,
    /// Values of a vector.
    dimension: Option<usize>,
    /// Of a text, at most.
    max_tokens: Option<usize>,
}

impl From<InstalledModel> for Model {
    fn from(here: InstalledModel) -> Self {
        let InstalledModel { name, task, is_default, bytes, license, load_time, dimension, max_tokens } = here;
        let (default, loaded, load_ms) =
            (is_default, load_time.is_some(), load_time.map(|time| time.as_micros() as f64 / 1e3));
        Self { name, kind: task.as_str(), default, loaded, bytes, license, load_ms, dimension, max_tokens }
    }
}

/// The index that `/search` searches.
#[derive(Debug, Serialize, JsonSchema)]
struct IndexStatus {
    /// The last part of what `TEALIGHT_INDEX` has.
    name: String,
    /// Its documents, once it is open.
    documents: Option<usize>,
    /// The model that made its vectors, once it is open.
    model: Option<String>,
}

/// Answers `GET /status`.
pub fn render(context: &RequestContext) -> Result<ApiResponse> {
    let (engine, config) = (context.engine, &context.engine.config);
    let limit = |style: ApiStyle| config.payload_limit.unwrap_or(style.payload_limit());
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
    let index = config.index.as_deref().map(|name| {
        // A file is opened in no time; what is in S3 waits until it is searched.
        let open = match name.starts_with("s3://") {
            true => engine.index_if_open(),
            false => engine.index(context.jobs.deadline).ok(),
        };
        let model = open.as_ref().and_then(|index| index.model().map(String::from));
        let name = name.rsplit('/').next().unwrap_or(name).to_string();
        IndexStatus { name, documents: open.map(|index| index.rows()), model }
    });
    ApiResponse::json(&Status {
        version: env!("CARGO_PKG_VERSION"),
        isa: engine.cpu.isa.as_str(),
        isas: Isa::available().iter().map(|isa| isa.as_str()).collect(),
        threads: engine.cpu.threads(),
        uptime_s: now.saturating_sub(context.started),
        memory_bytes: resident(),
        limits: Limits {
            body_bytes: limit(ApiStyle::OpenAi),
            audio_bytes: limit(ApiStyle::Audio),
            batch: config.max_client_batch_size,
        },
        models: engine.registry.installed().into_iter().map(Model::from).collect(),
        index,
        requests: context.metrics.totals(),
    })
}
