//! Sinks: where points go, straight into an index or as objects to Amazon S3.
//!
//! | URL | what |
//! |---|---|
//! | `qdrant+https://HOST:PORT/COLLECTION` | a collection of Qdrant; the key is its API key |
//! | `opensearch+https://HOST/INDEX` | an index of OpenSearch or Elasticsearch; `USER:PASSWORD@`, or the key, or `?aws=es` and `?aws=aoss` for AWS's signature |
//! | `s3vectors://BUCKET/INDEX` | an index of Amazon S3 Vectors |
//! | `postgres://USER@HOST/DATABASE?table=documents` | a table of PostgreSQL with pgvector; the key is the password |
//! | `s3://BUCKET/PREFIX` | objects, named after what the points come from |
//!
//! `?encoding=` is how vectors are written, where an index takes more than numbers. Ids are the same for the same document, so that
//! what is written twice is there once, and whatever may pass is tried again.

mod batching;
mod client;
mod config;
mod opensearch;
#[cfg(feature = "postgres")]
mod postgres;
mod qdrant;
mod retry;
mod s3_object;
mod s3_vectors;
mod url;

pub use config::{MAX_PENDING, Sink, SinkConfig, Source, from_env, from_url};
