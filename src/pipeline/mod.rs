//! Documents to points: document, chunk, embedding, point, format, sink.

pub mod documents;
pub mod embed;
pub mod format;
pub mod ingest;
pub mod sinks;
