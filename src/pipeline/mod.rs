//! Documents to points: document, chunk, embedding, point, format, sink.

pub mod chunk;
pub mod embed;
pub mod format;
pub mod ingest;
pub mod input;
pub mod point;
pub mod recording;
pub mod sink;
