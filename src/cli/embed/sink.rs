//! `tealight embed --sink`: writes points of documents to a vector database or to Amazon S3.

use super::args::EmbedArgs;
use super::documents::documents;
use crate::engine::{Engine, LoadTimer};
use crate::pipeline::document::short_hash;
use crate::pipeline::ingest::{Commit, Failure, Ingest};
use crate::pipeline::sink::{self, OutputName};
use std::io::Write;
use std::path::Path;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

pub(super) fn run(args: &EmbedArgs, engine: &Engine, url: &str) -> Result<()> {
    let target = sink::from_url(url, engine).map_err(|e| e.with_context("--sink"))?;
    let sink = target.open(&output_name(args), Deadline::NONE)?;
    let documents = documents(args, engine)?;
    let prompt = args.prompt_name.as_deref();
    let (chunking, dimensions, load_timer) = (args.chunking(), args.dimensions, LoadTimer::default());
    let ingest = Ingest { engine, chunking, dimensions, prompt, load_timer };
    let run = ingest.run(sink, documents, Commit::AllOrNothing, Deadline::NONE);
    for Failure { number, id, error } in &run.report.first_failures {
        let name = id.as_deref().map_or_else(String::new, |id| format!(", {:?}", truncate_for_display(id)));
        let _ = writeln!(std::io::stderr(), "tealight: document {number}{name}: {error}");
    }
    match (run.stop, run.report.failed_numbers.len()) {
        (Some(stop), _) => Err(stop.error().clone()),
        (None, 0) => Ok(()),
        (None, n) => {
            Err(Error::new(ErrorKind::InvalidValue, format!("failed documents: {n}; all others were written")))
        }
    }
}

fn output_name(args: &EmbedArgs) -> OutputName {
    if !args.texts.is_empty() {
        return OutputName::Documents(short_hash(&args.texts.join("\n")));
    }
    match args.input.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => OutputName::File(path.to_string_lossy().into_owned()),
        None => OutputName::Documents("stdin".into()),
    }
}
