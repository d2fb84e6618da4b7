//! Sinks: write points to a vector database, or as objects to Amazon S3.
//!
//! | URL | destination |
//! |---|---|
//! | `qdrant+https://HOST:PORT/COLLECTION` | a Qdrant collection; the key is its API key |
//! | `opensearch+https://HOST/INDEX` | an index of OpenSearch or Elasticsearch; with `USER:PASSWORD@`, an API key, or an AWS signature (`?aws=es` or `?aws=aoss`) |
//! | `s3vectors://BUCKET/INDEX` | an index of Amazon S3 Vectors |
//! | `postgres://USER@HOST/DATABASE?table=documents` | a PostgreSQL table with pgvector; the key is the password |
//! | `s3://BUCKET/PREFIX` | one object per [`OutputName`] |
//!
//! `?encoding=` sets the encoding of vectors, if the store supports several. Writes are idempotent, because the id of a point is
//! deterministic. Failures that may be temporary are retried.
//!
//! [`SinkConfig`] parses the URL and opens a [`Sink`]. Each store has a module with its configuration and its client, which
//! implements `StoreClient` for one request body; `batching` turns that into a sink, and `client` and `retry` send requests.

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
mod traits;
mod url;

pub use config::{SinkConfig, configured, from_url};
pub use traits::{MAX_PENDING, OutputName, Rejections, Sink};
