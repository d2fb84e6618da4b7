//! From documents to a vector database: document → chunk → embed → point → format → sink.
//!
//! Read the modules in this order:
//!
//! | step | module | what it does |
//! |---|---|---|
//! | document | [`document`], [`input`] | defines a document; reads documents from JSON Lines, CSV, Parquet, text files and recordings |
//! | chunk | [`chunk`] | splits a text into chunks at sentence boundaries, each within the token limit |
//! | embed | [`embed`] | the engine's job: documents in, points out |
//! | point | [`point`] | a chunk with its vector and a deterministic id |
//! | format | [`mod@format`] | writes points as request bodies, files or records |
//! | sink | [`sink`] | sends points to a vector database, or writes objects to Amazon S3 |
//!
//! [`ingest`] runs all of these at the same time, within a deadline, and reports what failed. The other entry points use a part of
//! them: `POST /documents` returns request bodies, `tealight embed --format` writes them to a file.
//!
//! `D` is the embedding dimension.

pub mod chunk;
pub mod document;
pub mod embed;
pub mod format;
#[cfg(feature = "sinks")]
pub mod ingest;
pub mod input;
pub mod point;
#[cfg(feature = "sinks")]
pub mod sink;
