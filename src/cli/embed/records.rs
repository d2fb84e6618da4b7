//! `tealight embed` without a vector database: one record per text or document.

use super::super::output::json_line;
use super::args::EmbedArgs;
use super::documents::documents;
use crate::engine::{Embed, EmbedInputs, Engine, Input, Truncation};
use crate::pipeline::document::Document;
use crate::pipeline::format::output::write_line;
use crate::pipeline::format::records::{Record, RecordWriter};
use crate::pipeline::format::{Format, encode};
use serde_json::value::to_raw_value;
use std::io::Write;
use tealight_core::{Deadline, Error, ErrorKind, Result};

/// Documents per embedding job.
const DOCUMENTS_PER_JOB: usize = 256;

/// Writes the records of the input.
pub(super) fn convert(args: &EmbedArgs, engine: &Engine, out: &mut dyn Write) -> Result<()> {
    let format = args.format();
    if !args.texts.is_empty() && format == Format::Json {
        return write_embeddings(args, engine, out);
    }
    let mut writer = RecordWriter::new(out, format);
    let mut documents = valid_documents(args, engine)?.peekable();
    let mut next = 0;
    while documents.peek().is_some() {
        let batch = documents.by_ref().take(DOCUMENTS_PER_JOB).collect::<Result<Vec<_>>>()?;
        let count = batch.len();
        if !writer.push(embed(args, engine, batch, next)?)? {
            return Ok(());
        }
        next += count;
    }
    let dimension = match (format, args.dimensions) {
        (Format::Npy, None) => engine.preload()?.model.dimension(),
        (_, dimensions) => dimensions.unwrap_or(0),
    };
    writer.finish(dimension, args.encoding.0)
}

/// Writes the embeddings of the texts on the command line as a JSON list; of one text, its embedding.
fn write_embeddings(args: &EmbedArgs, engine: &Engine, out: &mut dyn Write) -> Result<()> {
    let documents = valid_documents(args, engine)?.collect::<Result<Vec<_>>>()?;
    let records = embed(args, engine, documents, 0)?;
    let text = match &records[..] {
        [record] => json_line(&record.embedding)?,
        records => json_line(&records.iter().map(|r| &r.embedding).collect::<Vec<_>>())?,
    };
    write_line(out, &text).map(drop)
}

/// The documents of the input; an invalid one is an error.
fn valid_documents<'a>(
    args: &'a EmbedArgs,
    engine: &'a Engine,
) -> Result<Box<dyn Iterator<Item = Result<Document>> + 'a>> {
    let unit = if args.texts.is_empty() { "line" } else { "text" };
    let documents = documents(args, engine)?;
    Ok(Box::new(documents.map(move |entry| {
        let entry = entry?;
        entry.document.map_err(|e| e.with_context(format_args!("{unit} {}", entry.number)))
    })))
}

fn embed(args: &EmbedArgs, engine: &Engine, documents: Vec<Document>, first: usize) -> Result<Vec<Record>> {
    if let Some(i) = documents.iter().position(|d| d.text.is_empty()) {
        return Err(Error::new(ErrorKind::Empty, format!("text[{}] is empty", first + i + 1)));
    }
    let job = Embed {
        inputs: EmbedInputs {
            model: None,
            items: documents.iter().map(|d| Input::Text(d.text.clone())).collect(),
            prompt: args.prompt_name.clone(),
            truncation: Truncation::right_if(args.truncate),
            // Errors count texts from 1, over all jobs, unlike those of the API: the number is also that of the line of the input.
            field: "text",
            first_index: first + 1,
        },
        normalize: !args.no_normalize,
        dimensions: args.dimensions,
    };
    let vectors = engine.run(job, Deadline::NONE)?.vectors;
    let record = |(i, (document, vector)): (usize, (Document, Vec<f32>))| {
        let (embedding, scale) = encode(vector, args.encoding.0);
        let number = || to_raw_value(&(first + i)).unwrap_or_default();
        let Document { id, text, metadata } = document;
        Record { id: id.unwrap_or_else(number), text, metadata, embedding, scale }
    };
    Ok(documents.into_iter().zip(vectors).enumerate().map(record).collect())
}
