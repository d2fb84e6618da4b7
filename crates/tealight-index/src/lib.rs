#![doc = include_str!("../README.md")]
//!
//! # Building and searching
//!
//! ```
//! use tealight_index::{IndexDocument, Filter, Index, IndexBuilder, Metric, ScanEncoding, SearchQuery};
//! use tealight_kernels::{CpuContext, Isa};
//!
//! let path = std::env::temp_dir().join(format!("doc-{}.tlx", std::process::id()));
//! let mut builder = IndexBuilder::new(None, 3, Metric::Cosine, ScanEncoding::Int8)?;
//! let document = |id: &str, text: &str| IndexDocument { id: id.into(), text: text.into(), metadata: Default::default() };
//! builder.add(&document("a", "The tide comes in."), &[1.0, 0.0, 0.0])?;
//! builder.add(&document("b", "Rates rise."), &[0.0, 1.0, 0.0])?;
//! builder.write(&path)?;
//!
//! let (index, cpu) = (Index::open(&path)?, CpuContext::new(Isa::detect(), 1));
//! let hits = index.search(&cpu, &SearchQuery { vector: Some(&[0.9, 0.1, 0.0]), top_k: 1, ..Default::default() })?;
//! assert_eq!(hits[0].document.id, "a");
//! let hits = index.search(&cpu, &SearchQuery { lexical: Some("rates"), top_k: 1, ..Default::default() })?;
//! assert_eq!(hits[0].document.id, "b");
//! # std::fs::remove_file(&path).unwrap();
//! # Ok::<(), tealight_core::Error>(())
//! ```
//!
//! # Data flow
//!
//! A vector search has two passes. The first scores the query against all rows in a compressed encoding ([`ScanEncoding`]), or
//! takes candidates from an HNSW graph if the file has one. The second scores the best of these rows again in float16. A lexical
//! search scores documents with BM25. A hybrid search fuses both lists by their ranks. Documents that the [`Filter`] rejects are
//! skipped in the first pass, so that the number of hits does not shrink.
//!
//! | module | contents |
//! |---|---|
//! | `builder` | [`IndexBuilder`]: documents and vectors to a file |
//! | `index` | [`Index`]: opens a file, reads documents and vectors |
//! | `search` | [`SearchQuery`] to [`SearchHit`]s |
//! | `scan` | the first pass: int8, 4-bit and binary rows |
//! | `hnsw` | the first pass with a graph (feature `graph`) |
//! | `bm25` | lexical search |
//! | `filter` | [`Filter`]: conditions on metadata |
//! | `format` | the header of a file, and the names of its sections |
//! | `file`, `write` | the layout of a file, and reading it; writing it |
//!
//! # Shapes
//!
//! Vectors have `D` dimensions. Rows are numbered from 0 in the order in which they were added. Compressed rows are stored in
//! blocks of 16.

mod bm25;
mod builder;
mod document;
mod file;
mod filter;
mod format;
#[cfg(feature = "graph")]
mod hnsw;
mod index;
mod scan;
mod search;
mod top_k;
mod vectors;
mod write;

pub use builder::IndexBuilder;
pub use document::IndexDocument;
pub use filter::Filter;
pub use format::{Metric, ScanEncoding};
pub use index::Index;
pub use search::{MAX_TOP_K, SearchHit, SearchQuery};
pub use vectors::{MAX_DIMENSION, MAX_NORM};
