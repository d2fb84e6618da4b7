//! Points as rows of a PostgreSQL table with pgvector: for `COPY`
//! (<https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2>) and as SQL.

use super::metadata::metadata_json;
use crate::pipeline::point::Point;
use std::fmt::Write as _;
use tealight_core::{Error, Result, truncate_for_display};

const COLUMNS: [&str; 9] = ["id", "document_id", "chunk", "text", "start", "end", "model", "metadata", "vector"];

/// The values of a row, in the order of [`COLUMNS`].
///
/// # Errors
/// [`tealight_core::ErrorKind::InvalidValue`]: a value contains U+0000.
pub(super) fn columns(point: &Point, vector: String) -> Result<[String; 9]> {
    let (document, metadata) = (&point.document, metadata_json(point));
    let is_nul = |text: &str| text.contains('\0');
    let field = document.metadata.iter().find(|(name, value)| is_nul(name) || has_nul(value.get()));
    let invalid = match field {
        Some((name, _)) => Some(("metadata", format!("metadata field {:?} contains", truncate_for_display(name)))),
        None if is_nul(&document.document_id) => Some(("id", "id contains".to_string())),
        None if is_nul(&point.text) => Some(("text", "text contains".to_string())),
        None => None,
    };
    if let Some((field, what)) = invalid {
        let message = format!("{what} the character U+0000, which PostgreSQL does not accept");
        return Err(Error::invalid_value(field, message));
    }
    let [chunk, start, end] = [point.chunk_index, point.start, point.end].map(|n| n.to_string());
    let (id, document_id, text, model) =
        (point.id.to_string(), document.document_id.clone(), point.text.clone(), document.model.clone());
    Ok([id, document_id, chunk, text, start, end, model, metadata, vector])
}

/// Whether JSON contains the escape `\u0000`, with a backslash that is not itself escaped.
fn has_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(start, _)| {
        let backslashes = json[..start].bytes().rev().take_while(|byte| *byte == b'\\').count();
        backslashes % 2 == 0
    })
}

/// Escapes a character as both COPY and `E''` literals require.
fn escape(c: char, out: &mut String) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        c => out.push(c),
    }
}

/// A line of the text format of `COPY`.
pub(super) fn copy_row(row: &[String; 9]) -> String {
    let mut line = String::new();
    for (i, value) in row.iter().enumerate() {
        if i > 0 {
            line.push('\t');
        }
        for c in value.chars() {
            match c {
                '\t' => line.push_str("\\t"),
                c => escape(c, &mut line),
            }
        }
    }
    line.push('\n');
    line
}

/// A parenthesized list of literals for `INSERT`.
pub(super) fn sql_values(row: &[String; 9]) -> String {
    let literal = |value: &String| {
        let mut out = String::from(if value.contains(['\\', '\n', '\r']) { "E'" } else { "'" });
        for c in value.chars() {
            match c {
                '\'' => out.push_str("''"),
                c => escape(c, &mut out),
            }
        }
        out.push('\'');
        out
    };
    format!("({})", row.iter().map(literal).collect::<Vec<_>>().join(","))
}

/// The start of the statement, up to the first row.
pub(super) fn insert(table: &str) -> String {
    let columns = COLUMNS.map(|name| format!("\"{name}\"")).join(", ");
    format!("INSERT INTO {table} ({columns}) VALUES ")
}

/// The end of the statement, which makes it overwrite existing rows.
pub(super) fn on_conflict() -> String {
    let mut tail = String::from(" ON CONFLICT (\"id\") DO UPDATE SET ");
    for (i, name) in COLUMNS.iter().skip(1).enumerate() {
        let _ = write!(tail, "{}\"{name}\" = EXCLUDED.\"{name}\"", if i > 0 { ", " } else { "" });
    }
    tail + ";"
}
