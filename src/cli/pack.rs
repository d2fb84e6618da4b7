//! `tealight pack`: quantizes a model into one memory-mapped file.

use super::output::print;
use crate::config::Config;
use clap::Args;
use std::path::PathBuf;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;
use tealight_models::pack::{PackMetadata, pack};

#[derive(Debug, Args)]
pub(super) struct PackArgs {
    /// Folder with config.json, model.safetensors and tokenizer.json, or a GGUF file
    source: PathBuf,
    /// GGUF file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Name of the model: general.name in the file
    #[arg(long)]
    name: Option<String>,
    /// SPDX identifier of the model's license: general.license in the file
    #[arg(long)]
    license: Option<String>,
    /// URL of the original model: general.source.url in the file
    #[arg(long, value_name = "URL")]
    source_url: Option<String>,
    /// Sample texts for SmoothQuant calibration, one per line [default: the default calibration texts, in English]
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
}

pub(super) fn run(args: &PackArgs) -> Result<()> {
    let metadata =
        PackMetadata { name: args.name.clone(), license: args.license.clone(), source: args.source_url.clone() };
    let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e));
    let calibration = args.calibration.as_ref().map(read).transpose()?;
    let config = Config::from_env()?;
    let cpu = CpuContext::new(config.isa, config.threads);
    pack(&cpu, &args.source, &metadata, calibration.as_deref(), &args.output)?;
    print(|out| writeln!(out, "{}", args.output.display()))
}
