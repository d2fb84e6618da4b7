//! `tealight generate`.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::models::llama::Llama;
use crate::nn::Cpu;
use clap::Args;
use std::path::Path;

/// Which model, on how many threads.
#[derive(Debug, Args)]
pub(super) struct TextArgs {
    /// A GGUF file, or a name
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Threads [default: $TEALIGHT_THREADS or the cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl TextArgs {
    pub(super) fn load(&self) -> Result<(Llama, Cpu)> {
        let config = Config::from_env()?;
        let cpu = Cpu::new(config.isa, self.threads.map_or(config.threads, usize::from));
        let path = self.model.as_deref().ok_or_else(|| Error::value("model", "no model"))?;
        Ok((Llama::load(&cpu, Path::new(path))?, cpu))
    }
}
