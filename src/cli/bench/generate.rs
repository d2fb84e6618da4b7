//! `tealight bench generate`: prefill and decode with random token ids.

use super::super::generate::GeneratorArgs;
use super::support::{Random, print_row};
use clap::Args;
use serde::Serialize;
use std::time::Instant;
use tealight_core::Result;
use tealight_kernels::roofline;

#[derive(Debug, Args)]
pub struct GenerateBenchArgs {
    #[command(flatten)]
    model: GeneratorArgs,
    /// Prompt tokens, processed as one batch
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    prefill: u16,
    /// Tokens that are then processed one by one, as in generation
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    decode: u16,
    /// Timed runs, after one warm-up run
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct GenerateRow {
    threads: usize,
    isa: &'static str,
    prefill_tok_s: f64,
    decode_tok_s: f64,
    /// Bandwidth at which the weights are read: size of the weights times tokens per second.
    decode_gb_s: f64,
    /// Memory bandwidth of the same threads.
    memory_gb_s: f64,
}

impl std::fmt::Display for GenerateRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { threads, isa, prefill_tok_s, decode_tok_s, decode_gb_s, memory_gb_s } = self;
        let percent = 100.0 * decode_gb_s / memory_gb_s;
        write!(
            f,
            "prefill {prefill_tok_s:.0} tokens/s, decode {decode_tok_s:.1} tokens/s: {decode_gb_s:.1} GB/s of weights, {percent:.0}% of \
             the memory bandwidth of {memory_gb_s:.1} GB/s ({isa}, threads: {threads})"
        )
    }
}

/// Times prefill and decode with random tokens.
pub(super) fn run(args: &GenerateBenchArgs) -> Result<()> {
    let engine = args.model.engine()?;
    let (loaded, cpu) = (engine.registry.text_model(None)?.0, &engine.cpu);
    let model = &loaded.model.llama;
    let mut random = Random::new();
    let mut tokens =
        |count: u16| -> Vec<u32> { (0..count).map(|_| random.below(model.config.vocab_size) as u32).collect() };
    let (prompt, decode_tokens) = (tokens(args.prefill), tokens(args.decode));
    let (mut prefill, mut decode) = (vec![], vec![]);
    for _ in 0..=args.runs {
        let mut sequence = model.new_sequence(prompt.len() + decode_tokens.len());
        let start = Instant::now();
        model.forward(cpu, &mut sequence, &prompt, 1, || Ok(()))?;
        prefill.push(prompt.len() as f64 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        for id in &decode_tokens {
            model.forward(cpu, &mut sequence, &[*id], 1, || Ok(()))?;
        }
        decode.push(decode_tokens.len() as f64 / start.elapsed().as_secs_f64());
    }
    let median = |mut rates: Vec<f64>| {
        rates.remove(0);
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let (prefill_tok_s, decode_tok_s) = (median(prefill), median(decode));
    let decode_gb_s = model.weight_bytes() as f64 * decode_tok_s / 1e9;
    let (threads, isa, memory_gb_s) = (cpu.threads(), cpu.isa.as_str(), roofline::read_gb_per_second(cpu.threads()));
    let row = GenerateRow { threads, isa, prefill_tok_s, decode_tok_s, decode_gb_s, memory_gb_s };
    print_row(&row, args.json)
}
