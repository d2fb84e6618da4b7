//! `tealight cost`: estimates the cost of tokens and of hours of audio on AWS Lambda from the speed of this machine.
//!
//! ```text
//! vCPUs   = memory in MB / 1769
//! time    = work / (speed of one thread x speedup(vCPUs)); below one vCPU, time grows as 1 / vCPUs
//! dollars = (time + cold start / requests per environment) x memory in GB x price per GB-second + price per request
//! ```

use super::output::{json_line, print};
use crate::config::{Config, MB_PER_VCPU};
use crate::engine::{Engine, ModelTask};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tealight_core::{Error, ErrorKind, Result};

/// Memory sizes to estimate, in MB; sizes with more vCPUs than this machine has cores are left out.
const MEMORY_SIZES: [u32; 7] = [512, 1024, 1769, 3538, 5307, 7076, 10_240];
/// Texts per embedding request, and tokens per text.
const EMBED_SHAPE: (u32, u32) = (32, 128);
/// Prompt tokens and completion tokens per text-generation request.
const GENERATE_SHAPE: (u32, u32) = (256, 64);

/// Prices of AWS Lambda: <https://aws.amazon.com/lambda/pricing/>.
#[derive(Debug, Clone, Copy, Serialize)]
struct Prices {
    region: &'static str,
    as_of: &'static str,
    /// Dollars per GB-second on x86-64, first tier.
    x86_64: f64,
    /// Dollars per GB-second on arm64, first tier.
    arm64: f64,
    /// Dollars per request.
    request: f64,
}

const PRICES: Prices =
    Prices { region: "us-east-1", as_of: "2026-11", x86_64: 0.000_016_666_7, arm64: 0.000_013_333_4, request: 0.2e-6 };

#[derive(Debug, Args)]
pub(super) struct CostArgs {
    /// Audio file to measure transcription with; without it, the cost of audio is not estimated
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// Requests per Lambda environment, from its cold start to its end
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Print one JSON object per memory size
    #[arg(long)]
    json: bool,
}

/// One request: how much it processes, and how long it takes.
#[derive(Debug, Clone, Copy)]
struct Work {
    /// Millions of tokens, or hours of audio.
    units: f64,
    /// Seconds on one thread.
    one_thread: f64,
    /// Seconds on all threads of this machine.
    all_threads: f64,
}

impl Work {
    /// Seconds on this many virtual CPUs. The speedup between one and all threads is interpolated linearly.
    fn seconds(self, vcpus: f64, threads: usize) -> f64 {
        if vcpus <= 1.0 || threads < 2 {
            return self.one_thread / vcpus.min(1.0);
        }
        let share = (vcpus - 1.0) / (threads as f64 - 1.0);
        self.one_thread / (1.0 + share.min(1.0) * (self.one_thread / self.all_threads - 1.0))
    }
}

/// Costs at one memory size on one architecture.
#[derive(Debug, Serialize)]
struct CostRow {
    memory_mb: u32,
    vcpus: f64,
    architecture: &'static str,
    /// Whether this machine has this architecture. If not, the speed of this machine is combined with that architecture's price.
    is_measured: bool,
    usd_per_million_tokens: f64,
    usd_per_audio_hour: Option<f64>,
    usd_per_million_completion_tokens: Option<f64>,
    /// Former name of `usd_per_million_completion_tokens`.
    usd_per_million_written_tokens: Option<f64>,
    /// Share of the cold start in `usd_per_million_tokens`.
    cold_share: f64,
}

/// Measurements of this machine.
struct Machine {
    isa: String,
    threads: usize,
    /// Seconds.
    cold_start: f64,
    embed: Work,
    audio: Option<Work>,
    text: Option<Work>,
}

pub(super) fn run(args: &CostArgs) -> Result<()> {
    let machine = Machine::measure(args)?;
    let rows = machine.rows(args.requests);
    if args.json {
        let lines = rows.iter().map(json_line).collect::<Result<Vec<_>>>()?;
        return print(|out| lines.iter().try_for_each(|line| writeln!(out, "{line}")));
    }
    let text = machine.explanation(args) + &table(&rows);
    print(|out| write!(out, "{text}"))
}

impl Machine {
    fn measure(args: &CostArgs) -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let (shape, (prompt, completion)) = (format!("{}x{}", EMBED_SHAPE.0, EMBED_SHAPE.1), GENERATE_SHAPE);
        let (prefill, decode) = (prompt.to_string(), completion.to_string());
        let both = |f: &dyn Fn(usize) -> Result<Value>| Ok::<_, Error>((f(1)?, f(threads)?));
        if args.recording.is_some() && !ModelTask::Speech.is_enabled() {
            return Err(Error::feature_disabled(ErrorKind::InvalidValue, "--recording", "speech"));
        }
        // First, so that an invalid recording is reported before the other measurements, which take minutes.
        let audio = args.recording.as_ref().map(|file| {
            let file = file.to_string_lossy();
            let (one, all) = both(&|n| bench(&["bench", "transcribe", "--input", &file], Some(n)))?;
            let units = number(&one, "seconds")? / 3600.0;
            Ok::<_, Error>(Work {
                units,
                one_thread: number(&one, "s_median")?,
                all_threads: number(&all, "s_median")?,
            })
        });
        let audio = audio.transpose()?;
        let (one, all) = both(&|n| bench(&["bench", "embed", "--shape", &shape], Some(n)))?;
        let seconds = |row: &Value| number(row, "ms_median").map(|ms| ms / 1e3);
        let units = f64::from(EMBED_SHAPE.0 * EMBED_SHAPE.1) / 1e6;
        let embed = Work { units, one_thread: seconds(&one)?, all_threads: seconds(&all)? };
        let generate = ["bench", "generate", "--prefill", &prefill, "--decode", &decode];
        let text = has_text_model()?.then(|| {
            let (one, all) = both(&|n| bench(&generate, Some(n)))?;
            let seconds = |row: &Value| {
                let (prefill, decode) = (number(row, "prefill_tok_s")?, number(row, "decode_tok_s")?);
                Ok::<_, Error>(f64::from(prompt) / prefill + f64::from(completion) / decode)
            };
            Ok::<_, Error>(Work {
                units: f64::from(completion) / 1e6,
                one_thread: seconds(&one)?,
                all_threads: seconds(&all)?,
            })
        });
        let cold_start = number(&bench(&["info", "--timing"], None)?, "whole_process_ms")? / 1e3;
        let isa = one["isa"].as_str().unwrap_or_default().to_string();
        Ok(Self { isa, threads, cold_start, embed, audio, text: text.transpose()? })
    }

    fn rows(&self, requests: u32) -> Vec<CostRow> {
        let sizes = MEMORY_SIZES.into_iter().filter(|mb| f64::from(*mb) / MB_PER_VCPU <= self.threads as f64);
        let architectures = [("x86_64", PRICES.x86_64), ("arm64", PRICES.arm64)];
        let this_architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
        let row = |(memory_mb, (architecture, price)): (u32, (&'static str, f64))| {
            let vcpus = f64::from(memory_mb) / MB_PER_VCPU;
            let second = f64::from(memory_mb) / 1024.0 * price;
            let cold = self.cold_start / vcpus.min(1.0) / f64::from(requests);
            let cost = |work: Work| {
                // Lambda bills whole milliseconds.
                let billed = (work.seconds(vcpus, self.threads) * 1e3).ceil() / 1e3;
                ((billed + cold) * second + PRICES.request) / work.units
            };
            let tokens = cost(self.embed);
            CostRow {
                memory_mb,
                vcpus,
                architecture,
                is_measured: architecture == this_architecture,
                usd_per_million_tokens: tokens,
                usd_per_audio_hour: self.audio.map(cost),
                usd_per_million_completion_tokens: self.text.map(cost),
                usd_per_million_written_tokens: self.text.map(cost),
                cold_share: cold * second / self.embed.units / tokens,
            }
        };
        sizes.flat_map(|mb| architectures.map(|a| row((mb, a)))).collect()
    }

    /// Text with the measurements, the prices and the formulas.
    fn explanation(&self, args: &CostArgs) -> String {
        let rate = |work: &Work| work.units / work.one_thread;
        let mut lines = vec![
            format!(
                "This machine: {}, {} threads; cold start {:.1} ms.",
                self.isa,
                self.threads,
                self.cold_start * 1e3
            ),
            format!(
                "One thread: {:.0} tokens/s in requests of {} texts of {} tokens.",
                rate(&self.embed) * 1e6,
                EMBED_SHAPE.0,
                EMBED_SHAPE.1
            ),
        ];
        match &self.audio {
            Some(audio) => lines.push(format!("One thread: {:.1} s of audio per second.", rate(audio) * 3600.0)),
            None if !ModelTask::Speech.is_enabled() => lines.push("Audio: this build does not transcribe.".into()),
            None => lines.push("Audio: not measured; use --recording FILE.".into()),
        }
        match &self.text {
            Some(text) => lines.push(format!(
                "One thread: {:.1} completion tokens/s in requests of {} prompt tokens and {} completion tokens.",
                rate(text) * 1e6,
                GENERATE_SHAPE.0,
                GENERATE_SHAPE.1
            )),
            None if !ModelTask::Text.is_enabled() => lines.push("Text generation: this build has none.".into()),
            None => lines.push(
                "Text generation: not measured; install a model with `tealight pull smollm2-135m-instruct`.".into(),
            ),
        }
        let Prices { region, as_of, x86_64, arm64, request } = PRICES;
        lines.push(format!(
            "Prices ({region}, {as_of}, https://aws.amazon.com/lambda/pricing/): ${x86_64:.10} per GB-second on x86_64, ${arm64:.10} on \
             arm64, ${:.2} per million requests.",
            request * 1e6
        ));
        lines.push(format!(
            "vCPUs = MB / {MB_PER_VCPU}; time = work / speed; dollars = (time + cold start / {} requests) x GB x price + price per request.",
            args.requests
        ));
        lines.push("* Estimated from this machine, whose architecture differs; run the command on that architecture to measure it.".into());
        lines.push(String::new());
        lines.join("\n") + "\n"
    }
}

fn table(rows: &[CostRow]) -> String {
    let dollars = |cost: Option<f64>| cost.map_or_else(|| "-".into(), |cost| format!("{cost:.4}"));
    let head = format!(
        "{:>6} {:>6} {:<8} {:>17} {:>16} {:>28} {:>16}\n",
        "MB", "vCPUs", "", "$/million tokens", "$/hour of audio", "$/million completion tokens", "cold start share"
    );
    let line = |row: &CostRow| {
        let mark = if row.is_measured { "" } else { "*" };
        format!(
            "{:>6} {:>6.2} {:<8} {:>17} {:>16} {:>28} {:>15.2}%\n",
            row.memory_mb,
            row.vcpus,
            format!("{}{mark}", row.architecture),
            dollars(Some(row.usd_per_million_tokens)),
            dollars(row.usd_per_audio_hour),
            dollars(row.usd_per_million_completion_tokens),
            100.0 * row.cold_share
        )
    };
    head + &rows.iter().map(line).collect::<String>()
}

/// Whether a text-generation model is installed. One that would have to be downloaded first is not measured.
fn has_text_model() -> Result<bool> {
    let registry = Engine::new(Config::from_env()?)?.registry;
    Ok(registry.installed().iter().any(|model| model.task == ModelTask::Text && model.is_default))
}

/// Runs a command of this program with `--json` and returns what it prints. A new process, because a process cannot change its
/// number of threads.
fn bench(arguments: &[&str], threads: Option<usize>) -> Result<Value> {
    let io_error =
        |e: std::io::Error| Error::new(ErrorKind::Io, format!("cannot start the process to be measured: {e}"));
    let mut command = Command::new(std::env::current_exe().map_err(io_error)?);
    command.args(arguments).arg("--json").stdin(Stdio::null());
    if let Some(threads) = threads {
        command.args(["--threads", &threads.to_string()]);
    }
    let output = command.output().map_err(io_error)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let message = message.trim().trim_start_matches("tealight: ");
        return Err(Error::new(ErrorKind::Io, format!("tealight {}: {message}", arguments.join(" "))));
    }
    let line = output.stdout.split(|b| *b == b'\n').next().unwrap_or_default();
    serde_json::from_slice(line).map_err(|e| Error::internal(format!("the measured process printed invalid JSON: {e}")))
}

fn number(row: &Value, name: &str) -> Result<f64> {
    row[name].as_f64().ok_or_else(|| Error::internal(format!("the measurement has no {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work { units: 0.004_096, one_thread: 0.4, all_threads: 0.25 };

    #[test]
    fn time_depends_on_number_of_vcpus() {
        assert_eq!(WORK.seconds(0.5, 2), 0.8);
        assert_eq!(WORK.seconds(1.0, 2), 0.4);
        assert!((WORK.seconds(2.0, 2) - 0.25).abs() < 1e-12);
        assert!((WORK.seconds(1.5, 2) - 0.4 / 1.3).abs() < 1e-12);
        assert_eq!(WORK.seconds(1.0, 1), 0.4);
    }

    #[test]
    fn cost_equals_documented_formula() {
        let machine =
            Machine { isa: "avx2".into(), threads: 2, cold_start: 0.01, embed: WORK, audio: None, text: None };
        let rows = machine.rows(100);
        assert_eq!(
            rows.iter().map(|r| r.memory_mb).collect::<Vec<_>>(),
            [512, 512, 1024, 1024, 1769, 1769, 3538, 3538]
        );
        let row = &rows[4];
        let expected = ((0.4 + 0.0001) * 1769.0 / 1024.0 * 0.000_016_666_7 + 0.2e-6) / 0.004_096;
        let found = row.usd_per_million_tokens;
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
        assert!(row.architecture == "x86_64" && row.usd_per_audio_hour.is_none());
        let share = 0.0001 * 1769.0 / 1024.0 * 0.000_016_666_7 / (expected * 0.004_096);
        assert!((row.cold_share - share).abs() < 1e-12);
        assert_eq!(rows.iter().filter(|r| r.is_measured).count(), 4);
    }
}
