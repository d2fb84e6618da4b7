//! `tealight info --timing`: what a cold start is made of, measured on processes of their own.

use super::{ModelArgs, json_line, print};
use crate::engine::{Embed, EmbedInputs, Engine, Input, Truncation};
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

/// Processes that are started, one after another.
const RUNS: usize = 21;
/// The variable that carries the time at which a process was started, in nanoseconds since 1970.
const STARTED: &str = "TEALIGHT_STARTED";
/// The text whose vector ends a cold start.
const TEXT: &str = "hello world";

/// What one process measured, in milliseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Phases(Vec<(String, f64)>);

impl Phases {
    fn add(&mut self, name: &str, time: Duration) {
        self.0.push((name.into(), time.as_secs_f64() * 1e3));
    }
}

/// Starts processes and prints the median of each phase.
pub(super) fn run(model: &ModelArgs, as_json: bool) -> Result<()> {
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
    print(|out| match as_json {
        true => writeln!(out, "{json}"),
        false => rows.iter().try_for_each(|(name, ms)| writeln!(out, "{name:<16} {ms:>8.3} ms")),
    })
}

/// A process that measures itself, and how long it took as a whole.
fn start(model: &ModelArgs) -> Result<Phases> {
    let failed = |e: std::io::Error| Error::new(ErrorKind::Io, format!("cannot start a process to measure: {e}"));
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["info", "--timing"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some(name) = &model.model {
        command.args(["--model", name]);
    }
    if let Some(threads) = model.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let begin = Instant::now();
    let output = command.env(STARTED, now.as_nanos().to_string()).output().map_err(failed)?;
    let whole = begin.elapsed();
    if !output.status.success() {
        return Err(Error::new(ErrorKind::Io, "a process that was measured failed"));
    }
    let mut phases: Phases = serde_json::from_slice(&output.stdout)
        .map_err(|e| Error::internal(format!("a process that was measured printed something else: {e}")))?;
    phases.add("whole process", whole);
    Ok(phases)
}

/// When this process was started, if it is one that measures itself.
pub(super) fn started() -> Option<Duration> {
    std::env::var(STARTED).ok()?.parse().ok().map(Duration::from_nanos)
}

/// Runs a cold start in this process and prints its phases.
pub(super) fn measure(model: &ModelArgs, started: Duration, main: SystemTime) -> Result<()> {
    let since_epoch = main.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut phases = Phases::default();
    phases.add("exec to main", since_epoch.saturating_sub(started));
    phases.add("arguments", main.elapsed().unwrap_or_default());
    let spans = Spans::default();
    tracing_subscriber::registry().with(spans.clone()).init();
    let begin = Instant::now();
    let engine = model.engine()?;
    phases.add("configuration", begin.elapsed());
    let begin = Instant::now();
    engine.preload()?;
    let load = begin.elapsed();
    let spans = spans.done();
    let inside: Duration = spans.iter().map(|(_, time)| *time).sum();
    spans.iter().for_each(|(name, time)| phases.add(name, *time));
    phases.add("rest of loading", load.saturating_sub(inside));
    embed(&engine, &mut phases)?;
    let json = json_line(&phases)?;
    print(|out| writeln!(out, "{json}"))
}

fn embed(engine: &Engine, phases: &mut Phases) -> Result<()> {
    let inputs = vec![Input::Text(TEXT.into())];
    let texts = EmbedInputs {
        model: None,
        inputs,
        prompt: None,
        truncation: Truncation::Error,
        field: "input",
        first_index: 0,
    };
    let output = engine.run(Embed { texts, normalize: true, dimensions: None }, Deadline::NONE)?;
    phases.add("tokens", output.usage.tokenization);
    phases.add("forward pass", output.usage.inference);
    let begin = Instant::now();
    let json = json_line(&output.vectors)?;
    std::io::sink().write_all(json.as_bytes()).map_err(|e| Error::internal(e.to_string()))?;
    phases.add("JSON", begin.elapsed());
    Ok(())
}

/// Collects how long spans were open.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<SpanTimes>>);

#[derive(Debug, Default)]
struct SpanTimes {
    open: HashMap<u64, (&'static str, Instant)>,
    done: Vec<(&'static str, Duration)>,
}

impl Spans {
    fn done(&self) -> Vec<(&'static str, Duration)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).done.clone()
    }
}

impl<S: tracing::Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &tracing::span::Attributes<'_>, id: &tracing::Id, _: Context<'_, S>) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.open.insert(id.into_u64(), (attributes.metadata().name(), Instant::now()));
    }

    fn on_close(&self, id: tracing::Id, _: Context<'_, S>) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((name, begin)) = times.open.remove(&id.into_u64()) {
            times.done.push((name, begin.elapsed()));
        }
    }
}
