//! Options that several commands share.

use crate::config::Config;
use crate::engine::Engine;
use crate::pipeline::format::VectorEncoding;
use clap::{Args, ValueEnum};
use tealight_core::Result;

/// Options of all commands that compute embeddings.
#[derive(Debug, Args)]
pub(super) struct EmbeddingModelArgs {
    /// Embedding model: a GGUF file, a folder or a name [default: $TEALIGHT_MODEL or all-MiniLM-L6-v2]
    #[arg(long, short, value_name = "MODEL")]
    pub(super) model: Option<String>,
    /// Number of threads [default: $TEALIGHT_THREADS or one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
}

impl EmbeddingModelArgs {
    /// An engine for these options.
    pub(super) fn engine(&self) -> Result<Engine> {
        let mut config = Config::from_env()?;
        if let Some(model) = &self.model {
            config.model = model.clone();
        }
        if let Some(threads) = self.threads {
            config.threads = threads.into();
        }
        Engine::new(config)
    }
}

/// A [`VectorEncoding`] on the command line.
#[derive(Debug, Clone, Copy)]
pub(super) struct VectorEncodingArg(pub VectorEncoding);

impl ValueEnum for VectorEncodingArg {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [VectorEncodingArg; 6] = {
            let [a, b, c, d, e, f] = VectorEncoding::ALL;
            [
                VectorEncodingArg(a),
                VectorEncodingArg(b),
                VectorEncodingArg(c),
                VectorEncodingArg(d),
                VectorEncodingArg(e),
                VectorEncodingArg(f),
            ]
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.as_str()))
    }
}
