//! `GET /status`: installed models, limits and counters of this process.

use super::context::{ApiResponse, RequestContext};
use super::metrics::{Totals, resident_bytes};
use super::route::ApiStyle;
use crate::engine::inventory::InstalledModel;
use serde::Serialize;
use std::time::SystemTime;
use tealight_core::Result;
use tealight_kernels::Isa;

/// The response of `/status`. Unknown values are null.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    version: &'static str,
    /// The instruction set of the kernels.
    isa: &'static str,
    /// The instruction sets that this CPU has.
    isas: Vec<&'static str>,
    /// Threads of a forward pass.
    threads: usize,
    /// Seconds since the process started.
    uptime_s: u64,
    /// Resident memory of the process.
    memory_bytes: Option<u64>,
    limits: Limits,
    models: Vec<ModelStatus>,
    index: Option<IndexStatus>,
    requests: Totals,
}

/// Limits of a request.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Limits {
    /// Largest body, in bytes.
    body_bytes: usize,
    /// Largest body on audio routes, in bytes.
    audio_bytes: usize,
    /// Inputs per request on the routes of text-embeddings-inference.
    batch: usize,
}

/// An installed model.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ModelStatus {
    name: String,
    /// `embedding`, `speech` or `text`.
    kind: &'static str,
    /// Whether it serves requests of its kind that name no model.
    default: bool,
    loaded: bool,
    /// Size of its files.
    bytes: Option<u64>,
    /// SPDX identifier.
    license: Option<String>,
    load_ms: Option<f64>,
    /// Dimension of its embeddings.
    dimension: Option<usize>,
    /// Longest input.
    max_tokens: Option<usize>,
}

impl From<InstalledModel> for ModelStatus {
    fn from(model: InstalledModel) -> Self {
        let InstalledModel { name, task, is_default, bytes, license, load_time, dimension, max_tokens } = model;
        let (default, loaded) = (is_default, load_time.is_some());
        let load_ms = load_time.map(|time| time.as_micros() as f64 / 1e3);
        Self { name, kind: task.as_str(), default, loaded, bytes, license, load_ms, dimension, max_tokens }
    }
}

/// The index of `/search`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct IndexStatus {
    /// The file name in `TEALIGHT_INDEX`.
    name: String,
    /// Number of rows, once the index is open; a long document has several.
    documents: Option<usize>,
    /// The model that its vectors come from, once the index is open.
    model: Option<String>,
}

/// Handles `GET /status`.
pub fn render(context: &RequestContext) -> Result<ApiResponse> {
    let (engine, config) = (context.engine(), &context.engine().config);
    let limit = |style: ApiStyle| config.payload_limit.unwrap_or(style.payload_limit());
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
    ApiResponse::json(&Status {
        version: env!("CARGO_PKG_VERSION"),
        isa: engine.cpu.isa.as_str(),
        isas: Isa::available().iter().map(|isa| isa.as_str()).collect(),
        threads: engine.cpu.threads(),
        uptime_s: now.saturating_sub(context.started),
        memory_bytes: resident_bytes(),
        limits: Limits {
            body_bytes: limit(ApiStyle::OpenAi),
            audio_bytes: limit(ApiStyle::Audio),
            batch: config.max_client_batch_size,
        },
        models: engine.registry.installed().into_iter().map(ModelStatus::from).collect(),
        index: config.index.as_deref().map(|name| index_status(context, name)),
        requests: context.metrics.totals(),
    })
}

/// Opens an index file, which reads only its header. An index in S3 is only reported if a search has opened it.
fn index_status(context: &RequestContext, name: &str) -> IndexStatus {
    let (documents, model) = open_index(context, name).unzip();
    let name = name.rsplit('/').next().unwrap_or(name).to_string();
    IndexStatus { name, documents, model: model.flatten() }
}

/// The number of rows and the model of the index, if it is open.
#[cfg(feature = "index")]
fn open_index(context: &RequestContext, name: &str) -> Option<(usize, Option<String>)> {
    let index = if name.starts_with("s3://") {
        context.engine().index_if_open()
    } else {
        context.engine().index(context.job_context.deadline).ok()
    }?;
    Some((index.rows(), index.model().map(String::from)))
}

#[cfg(not(feature = "index"))]
fn open_index(_: &RequestContext, _: &str) -> Option<(usize, Option<String>)> {
    None
}
