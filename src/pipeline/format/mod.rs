//! Output: encodings of vectors, request bodies of vector databases, records of documents, files, and transcripts.
//!
//! | module | contents |
//! |---|---|
//! | `formats`, `encoding` | the names of all formats, and of the representations of a vector |
//! | `body`, `stores`, `metadata`, `field_names` | points as request bodies, within the limits of each vector database |
//! | `postgres_text` | points as rows of a PostgreSQL table |
//! | [`records`], [`npy`] | whole documents with one vector each: JSON, JSON Lines, NumPy |
//! | `columnar` | points as Arrow or Parquet (feature `arrow`) |
//! | [`transcript`] | transcripts as JSON, text or subtitles |

mod body;
#[cfg(feature = "arrow")]
pub mod columnar;
mod encoding;
mod field_names;
mod formats;
mod metadata;
pub mod npy;
pub mod output;
mod postgres_text;
pub mod records;
mod stores;
#[cfg(feature = "speech")]
pub mod transcript;

pub use body::{BodyBuilder, EncodedPoint};
pub use encoding::{Encoded, VectorEncoding, encode};
pub use formats::Format;
