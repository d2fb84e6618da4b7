//! Input of `tealight embed`.

use super::super::input::{file_documents, warn_not_a_document};
use super::args::EmbedArgs;
use crate::engine::Engine;
use crate::pipeline::document::Document;
use crate::pipeline::input::{self, DocumentIter, InputFormat};
use tealight_core::Result;

/// Documents of the texts on the command line, of `--input`, or of stdin.
pub(super) fn documents<'a>(args: &'a EmbedArgs, engine: &'a Engine) -> Result<DocumentIter<'a>> {
    if !args.texts.is_empty() {
        return Ok(input::from_iter(args.texts.iter().map(|text| Document::from_text(text).validate())));
    }
    let Some(path) = args.input_file() else {
        return Ok(input::read_lines(std::io::stdin().lock(), warn_not_a_document));
    };
    let format = InputFormat::from_file_name(&path.to_string_lossy()).ok();
    // Formats with records read every file line by line, regardless of its extension.
    file_documents(
        path,
        format.filter(|format| args.writes_points() || !matches!(format, InputFormat::JsonLines | InputFormat::Text)),
        engine,
    )
}
