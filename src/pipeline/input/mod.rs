//! Readers: documents from JSON Lines, CSV, Parquet, text files and recordings.
//!
//! Every reader returns a [`DocumentIter`]. An invalid document does not end it: the error is a separate item, with the line or
//! row. It ends early only if the source cannot be read any further.

mod csv;
mod format;
mod lines;
mod numbered_document;
#[cfg(feature = "arrow")]
mod parquet;
#[cfg(feature = "speech")]
mod recording;
mod text;

pub use self::csv::read_csv;
pub use self::format::InputFormat;
pub use self::lines::{read_json_lines, read_lines};
pub use self::numbered_document::{DocumentIter, NumberedDocument, from_iter, read_error};
#[cfg(feature = "arrow")]
pub use self::parquet::read_parquet;
pub use self::recording::recording_documents;
#[cfg(feature = "speech")]
pub use self::recording::segment_document;
pub use self::text::read_all;

#[cfg(not(feature = "speech"))]
mod recording {
    use crate::engine::JobContext;
    use crate::pipeline::document::Document;
    use bytes::Bytes;
    use tealight_core::{Error, ErrorKind, Result};

    /// Fails without reading the recording.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`].
    pub fn recording_documents(_: &JobContext, _: &str, _: impl FnOnce() -> Result<Bytes>) -> Result<Vec<Document>> {
        Err(Error::feature_disabled(ErrorKind::InvalidValue, "recordings", "speech"))
    }
}
