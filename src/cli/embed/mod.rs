//! `tealight embed`: embeddings of texts and documents.

mod args;
mod documents;
mod points;
mod records;
#[cfg(feature = "sinks")]
mod sink;

pub(super) use args::EmbedArgs;

use super::exit_with_usage_error;
use super::output::write_output;
use crate::engine::ValidateOptions;
use tealight_core::{Deadline, Result};

pub(super) fn run(args: &EmbedArgs) -> Result<()> {
    args.check_combinations().unwrap_or_else(|message| exit_with_usage_error("embed", message));
    args.format().check_encoding(args.encoding.0)?;
    let engine = args.model.engine()?;
    // Reports invalid options before waiting for input.
    engine.run(
        ValidateOptions { model: None, dimensions: args.dimensions, prompt: args.prompt_name.clone() },
        Deadline::NONE,
    )?;
    if let Some(url) = &args.sink {
        return sink::run(args, &engine, url);
    }
    if args.writes_points() {
        return points::run(args, &engine, args.format());
    }
    write_output(args.output.as_deref(), |out| records::convert(args, &engine, out))
}

#[cfg(not(feature = "sinks"))]
mod sink {
    use super::EmbedArgs;
    use crate::engine::Engine;
    use tealight_core::{Error, ErrorKind, Result};

    pub(super) fn run(_: &EmbedArgs, _: &Engine, _: &str) -> Result<()> {
        Err(Error::feature_disabled(ErrorKind::InvalidValue, "--sink", "sinks"))
    }
}
