//! `tealight embed --sink`: writes points of documents to a vector database or to Amazon S3.

use super::super::input::warn_not_a_document;
use super::args::EmbedArgs;
use super::documents::documents;
use crate::engine::{Engine, LoadTimer};
use crate::pipeline::document::short_hash;
use crate::pipeline::ingest::{Commit, Failure, Ingest};
use crate::pipeline::input::{DocumentIter, read_lines};
use crate::pipeline::sink::{self, OutputName, SinkConfig};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, Write};
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Name of standard input, for sinks that have no use for it.
const STDIN: &str = "stdin";
/// Paths, or folders of paths, that say nothing about the input: a shell passes `/dev/fd/63` for `<(command)`.
const STREAM_PATHS: [&str; 3] = ["/dev/stdin", "/dev/fd", "/proc"];

pub(super) fn run(args: &EmbedArgs, engine: &Engine, url: &str) -> Result<()> {
    let target = sink::from_url(url, engine).map_err(|e| e.with_context("--sink"))?;
    let (output_name, documents) = named_documents(args, engine, &target)?;
    let sink = target.open(&output_name, Deadline::NONE)?;
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

/// The documents, and the name of the object that an `s3://` sink writes for them.
fn named_documents<'a>(
    args: &'a EmbedArgs,
    engine: &'a Engine,
    target: &SinkConfig,
) -> Result<(OutputName, DocumentIter<'a>)> {
    let path = args.input_file();
    let name = match path {
        _ if !args.texts.is_empty() => OutputName::Documents(short_hash(&args.texts.join("\n"))),
        Some(path) if !STREAM_PATHS.iter().any(|stream| path.starts_with(stream)) => {
            OutputName::File(path.to_string_lossy().into_owned())
        }
        _ if !target.has_object_per_name() => OutputName::Documents(STDIN.into()),
        _ => {
            // Reports a missing region before waiting for input.
            target.open(&OutputName::Documents(STDIN.into()), Deadline::NONE)?;
            let (hash, copy) = match path {
                Some(path) => copy_and_hash(File::open(path).map_err(|e| Error::io("open", path, e))?)?,
                None => copy_and_hash(std::io::stdin().lock())?,
            };
            return Ok((OutputName::Documents(hash), read_lines(BufReader::new(copy), warn_not_a_document)));
        }
    };
    Ok((name, documents(args, engine)?))
}

/// Copies a stream of any length to a temporary file, which disappears when it is closed. Returns the SHA-256 hash of the content
/// in hexadecimal, and the file.
fn copy_and_hash(mut input: impl Read) -> Result<(String, File)> {
    let path = std::env::temp_dir().join(format!("tealight-stdin-{}", std::process::id()));
    let copy_error = |e| Error::io("copy the input to", &path, e);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).map_err(copy_error)?;
    std::fs::remove_file(&path).map_err(copy_error)?;
    let mut hasher = Sha256::new();
    let hashed = std::io::copy(&mut input, &mut file)
        .and_then(|_| file.rewind())
        .and_then(|()| std::io::copy(&mut file, &mut hasher))
        .and_then(|_| file.rewind());
    hashed.map_err(copy_error)?;
    Ok((format!("{:x}", hasher.finalize()), file))
}
