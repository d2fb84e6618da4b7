//! `tealight info --timing`: the phases of a cold start, measured in new processes.

use super::args::EmbeddingModelArgs;
use super::output::{json_line, print};
use crate::engine::{Embed, EmbedInputs, Engine, Input};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

/// Processes that are started one after another.
const RUNS: usize = 21;
/// Internal: passes the start time of a process to it, in nanoseconds since 1970.
const START_VARIABLE: &str = "TEALIGHT_INTERNAL_START_TIME";
/// The text whose embedding ends a cold start.
const TEXT: &str = "hello world";

/// Phases of one process, in milliseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Phases(Vec<(String, f64)>);

impl Phases {
    fn add(&mut self, name: &str, time: Duration) {
        self.0.push((name.into(), time.as_secs_f64() * 1e3));
    }
}

/// Starts the processes and prints the median of each phase.
pub(super) fn run(model: &EmbeddingModelArgs, as_json: bool) -> Result<()> {
    let runs = (0..RUNS).map(|_| start(model)).collect::<Result<Vec<_>>>()?;
    let names: Vec<&str> = runs[0].0.iter().map(|(name, _)| name.as_str()).collect();
    let median = |i: usize| {
        let mut times: Vec<f64> = runs.iter().filter_map(|run| Some(run.0.get(i)?.1)).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let rows: Vec<(&str, f64)> = names.iter().enumerate().map(|(i, name)| (*name, median(i))).collect();
    let object: serde_json::Map<String, serde_json::Value> =
        rows.iter().map(|(name, ms)| (format!("{}_ms", name.replace(' ', "_").to_lowercase()), (*ms).into())).collect();
    let json = json_line(&object)?;
    print(|out| {
        if as_json {
            return writeln!(out, "{json}");
        }
        rows.iter().try_for_each(|(name, ms)| writeln!(out, "{name:<16} {ms:>8.3} ms"))
    })
}

/// Starts a process that measures itself; adds the time of the whole process.
fn start(model: &EmbeddingModelArgs) -> Result<Phases> {
    let io_error =
        |e: std::io::Error| Error::new(ErrorKind::Io, format!("cannot start the process to be measured: {e}"));
    let mut command = Command::new(std::env::current_exe().map_err(io_error)?);
    command.args(["info", "--timing"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some(name) = &model.model {
        command.args(["--model", name]);
    }
    if let Some(threads) = model.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start = Instant::now();
    let output = command.env(START_VARIABLE, now.as_nanos().to_string()).output().map_err(io_error)?;
    let total = start.elapsed();
    if !output.status.success() {
        return Err(Error::new(ErrorKind::Io, "the measured process failed"));
    }
    let mut phases: Phases = serde_json::from_slice(&output.stdout)
        .map_err(|e| Error::internal(format!("the measured process printed invalid JSON: {e}")))?;
    phases.add("whole process", total);
    Ok(phases)
}

/// When this process was started, if it has to measure itself.
pub(super) fn start_time() -> Option<Duration> {
    std::env::var(START_VARIABLE).ok()?.parse().ok().map(Duration::from_nanos)
}

/// Measures the cold start of this process and prints its phases as JSON. `exec_time` is when the parent started the process, since
/// 1970; `main_time` is when `main` began.
pub(super) fn measure(model: &EmbeddingModelArgs, exec_time: Duration, main_time: SystemTime) -> Result<()> {
    let since_epoch = main_time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut phases = Phases::default();
    phases.add("exec to main", since_epoch.saturating_sub(exec_time));
    phases.add("arguments", main_time.elapsed().unwrap_or_default());
    let spans = SpanTimer::default();
    tracing_subscriber::registry().with(spans.clone()).init();
    let start = Instant::now();
    let engine = model.engine()?;
    phases.add("configuration", start.elapsed());
    let start = Instant::now();
    engine.preload()?;
    let load = start.elapsed();
    let spans = spans.closed_spans();
    let measured: Duration = spans.iter().map(|(_, time)| *time).sum();
    spans.iter().for_each(|(name, time)| phases.add(name, *time));
    phases.add("rest of loading", load.saturating_sub(measured));
    embed(&engine, &mut phases)?;
    let json = json_line(&phases)?;
    print(|out| writeln!(out, "{json}"))
}

fn embed(engine: &Engine, phases: &mut Phases) -> Result<()> {
    let inputs = EmbedInputs::new(vec![Input::Text(TEXT.into())]);
    let output = engine.run(Embed { inputs, normalize: true, dimensions: None }, Deadline::NONE)?;
    phases.add("tokens", output.usage.tokenization_time);
    phases.add("forward pass", output.usage.inference_time);
    let start = Instant::now();
    let json = json_line(&output.vectors)?;
    std::io::sink().write_all(json.as_bytes()).map_err(|e| Error::internal(e.to_string()))?;
    phases.add("JSON", start.elapsed());
    Ok(())
}

/// Measures how long spans are open.
#[derive(Debug, Clone, Default)]
struct SpanTimer(Arc<Mutex<SpanTimes>>);

#[derive(Debug, Default)]
struct SpanTimes {
    open: HashMap<u64, (&'static str, Instant)>,
    closed: Vec<(&'static str, Duration)>,
}

impl SpanTimer {
    fn closed_spans(&self) -> Vec<(&'static str, Duration)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).closed.clone()
    }
}

impl<S: tracing::Subscriber> Layer<S> for SpanTimer {
    fn on_new_span(&self, attributes: &tracing::span::Attributes<'_>, id: &tracing::Id, _: Context<'_, S>) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.open.insert(id.into_u64(), (attributes.metadata().name(), Instant::now()));
    }

    fn on_close(&self, id: tracing::Id, _: Context<'_, S>) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((name, start)) = times.open.remove(&id.into_u64()) {
            times.closed.push((name, start.elapsed()));
        }
    }
}
