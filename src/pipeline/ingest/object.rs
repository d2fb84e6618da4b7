//! Ingests the documents of an S3 object.

use super::outcome::{Commit, IngestResult, Stop};
use super::report::{Failure, Report};
use super::run::Ingest;
#[cfg(feature = "arrow")]
use crate::aws::object_reader::ObjectBlocks;
use crate::aws::object_reader::{ObjectReader, ObjectVersion};
use crate::aws::s3::{MAX_OBJECT_BYTES, S3Location};
#[cfg(feature = "arrow")]
use crate::pipeline::input::read_parquet;
use crate::pipeline::input::{
    DocumentIter, InputFormat, from_iter, read_all, read_csv, read_error, read_json_lines, recording_documents,
};
use crate::pipeline::sink::{OutputName, SinkConfig};
use bytes::Bytes;
use std::io::{BufReader, Read};
use tealight_core::{Deadline, Error, ErrorKind, Result};

/// Maximum attempts to read an object that is replaced meanwhile.
const MAX_ATTEMPTS: usize = 3;
/// Size of the read buffer, in bytes.
const BUFFER_BYTES: usize = 1 << 16;

/// What an S3 event says about a new object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectNotification {
    /// Name of the bucket.
    pub bucket: String,
    /// Not URL-encoded.
    pub key: String,
    /// ETag of the object when the event was sent; it may have been replaced since.
    pub etag: Option<String>,
    /// Size in bytes when the event was sent.
    pub size: Option<u64>,
    /// AWS region of the bucket.
    pub region: Option<String>,
}

impl ObjectNotification {
    /// Whether the object is only the placeholder that the S3 console creates for a folder.
    pub fn is_folder(&self) -> bool {
        self.key.ends_with('/') && self.size == Some(0)
    }
}

impl Ingest<'_> {
    /// Embeds the documents of the current version of an object and writes their points. A deleted object is reported as a failure,
    /// not as an error, because a retry would not find it either.
    ///
    /// # Errors
    /// [`Stop::Permanent`] if the object does not contain documents, else [`Stop::Retryable`]; a retry starts over.
    pub fn object(
        &self,
        sink_config: &SinkConfig,
        notification: &ObjectNotification,
        deadline: Deadline,
    ) -> Result<Report, Stop> {
        let object = S3Location::new(&notification.bucket, &notification.key).map_err(Stop::Permanent)?;
        let format = InputFormat::from_file_name(&notification.key).map_err(Stop::Permanent)?;
        let mut etag = notification.etag.clone();
        for _ in 0..MAX_ATTEMPTS {
            match self.ingest_version(sink_config, &object, format, notification, etag.take(), deadline) {
                Ok(Some(report)) => return Ok(report),
                Ok(None) => {}
                Err(stop) if stop.error().kind == ErrorKind::ObjectReplaced => {}
                Err(Stop::Retryable(error)) if error.kind == ErrorKind::ObjectNotFound => {
                    let mut report = Report::default();
                    report.add_failure(Failure { number: 0, id: None, error });
                    return Ok(report);
                }
                Err(stop) => return Err(stop),
            }
        }
        let message = format!(
            "{}: object changed {MAX_ATTEMPTS} times while being read; stop writing to it and retry",
            object.uri()
        );
        Err(Stop::Retryable(Error::new(ErrorKind::ObjectReplaced, message)))
    }

    /// Ingests one version. Returns `None` if there is a newer version at the end: its points may already have been overwritten by
    /// ours.
    fn ingest_version(
        &self,
        sink_config: &SinkConfig,
        object: &S3Location,
        format: InputFormat,
        notification: &ObjectNotification,
        etag: Option<String>,
        deadline: Deadline,
    ) -> Result<Option<Report>, Stop> {
        let region = notification.region.as_deref();
        let (version, first_block) =
            ObjectVersion::open(object, etag.as_deref(), region, deadline).map_err(Stop::Retryable)?;
        let output = OutputName::Object {
            bucket: notification.bucket.clone(),
            key: notification.key.clone(),
            etag: version.etag().to_string(),
        };
        let documents =
            self.documents(object, format, &version, first_block, deadline).map_err(Stop::from_source_error)?;
        let sink = sink_config.open(&output, deadline).map_err(Stop::Retryable)?;
        let IngestResult { report, stop, .. } = self.run(sink, documents, Commit::AllOrNothing, deadline);
        match stop {
            None => Ok(version.is_current().map_err(Stop::Retryable)?.then_some(report)),
            Some(Stop::Retryable(error)) if error.kind == ErrorKind::Timeout => {
                Err(Stop::Retryable(timed_out(object, &report)))
            }
            Some(stop) => Err(stop),
        }
    }

    fn documents(
        &self,
        object: &S3Location,
        format: InputFormat,
        version: &ObjectVersion,
        first_block: Bytes,
        deadline: Deadline,
    ) -> Result<DocumentIter<'static>> {
        let reader = ObjectReader::new(version.clone(), first_block);
        match format {
            InputFormat::JsonLines => Ok(read_json_lines(BufReader::with_capacity(BUFFER_BYTES, reader))),
            InputFormat::Csv(delimiter) => Ok(read_csv(reader, delimiter)),
            #[cfg(feature = "arrow")]
            InputFormat::Parquet => Ok(read_parquet(ObjectBlocks::new(version.clone()))),
            #[cfg(not(feature = "arrow"))]
            InputFormat::Parquet => Err(Error::feature_disabled(ErrorKind::InvalidValue, "Parquet", "arrow")),
            InputFormat::Text => Ok(read_all(reader, Some(object.uri()))),
            InputFormat::Audio => self.transcribe(object, version, reader, deadline),
        }
    }

    /// One document per segment of a recording.
    fn transcribe(
        &self,
        object: &S3Location,
        version: &ObjectVersion,
        reader: ObjectReader,
        deadline: Deadline,
    ) -> Result<DocumentIter<'static>> {
        let read = || {
            if version.length() > MAX_OBJECT_BYTES {
                let message = format!("recording is {} bytes; the limit is {MAX_OBJECT_BYTES}", version.length());
                return Err(Error::new(ErrorKind::BodyTooLarge, message));
            }
            let mut audio = Vec::with_capacity(version.length() as usize);
            reader.take(MAX_OBJECT_BYTES).read_to_end(&mut audio).map_err(read_error)?;
            Ok(audio.into())
        };
        let segments = recording_documents(&self.job_context(deadline), &object.uri(), read)?;
        Ok(from_iter(segments.into_iter().map(Ok)))
    }
}

fn timed_out(object: &S3Location, report: &Report) -> Error {
    let (documents, points) = (report.documents, report.points);
    let message = format!(
        "{}: timed out after {documents} documents ({points} points); retries start over. Raise the function's timeout, \
         split the object, or process it with a distributed map",
        object.uri()
    );
    Error::new(ErrorKind::Timeout, message)
}
