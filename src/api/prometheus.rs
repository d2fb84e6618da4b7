//! `GET /metrics`: counters in the text format of Prometheus, with the names of text-embeddings-inference where it has them.

use super::context::{ApiResponse, RequestContext};
use super::metrics::resident_bytes;
use std::fmt::Write;
use tealight_core::Result;

/// Handles `GET /metrics`.
pub fn render(context: &RequestContext) -> Result<ApiResponse> {
    let mut text = context.metrics.to_prometheus();
    let (isa, threads) = (context.engine().cpu.isa.as_str(), context.engine().cpu.threads());
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(
        text,
        "# TYPE tealight_info gauge\ntealight_info{{version=\"{version}\",isa=\"{isa}\",threads=\"{threads}\"}} 1"
    );
    let _ = writeln!(text, "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {}", context.started);
    if let Some(bytes) = resident_bytes() {
        let _ = writeln!(text, "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {bytes}");
    }
    let _ = writeln!(text, "# TYPE tealight_model_load_seconds gauge");
    for (task, name, time) in context.engine().registry.load_times() {
        let (kind, name, seconds) = (task.as_str(), escape(&name), time.as_secs_f64());
        let _ = writeln!(text, "tealight_model_load_seconds{{kind=\"{kind}\",model=\"{name}\"}} {seconds}");
    }
    Ok(ApiResponse::text(text, "text/plain; version=0.0.4"))
}

/// Escapes the value of a label: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
