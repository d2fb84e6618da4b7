//! An object of S3 as documents.

use super::{Commit, Failure, Ingest, Report, Run, Stop};
use crate::aws::object_reader::{ObjectReader, ObjectVersion};
use crate::aws::s3::{MAX_OBJECT_BYTES, S3Location};
use crate::pipeline::input::{DocumentIter, InputFormat, from_iter, read_all, read_csv, read_error, read_json_lines};
use crate::pipeline::recording::recording_documents;
use crate::pipeline::sink::{SinkConfig, Source};
use bytes::Bytes;
use std::io::{BufReader, Read};
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};

/// Times that an object is begun, where it is replaced again and again.
const MAX_ATTEMPTS: usize = 3;
/// Bytes that are read of a line at a time.
const BUFFER_BYTES: usize = 1 << 16;

/// What is told of an object that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectNotification {
    /// Its bucket.
    pub bucket: String,
    /// Its key, as it is, without escapes.
    pub key: String,
    /// The version that it had.
    pub etag: Option<String>,
    /// Bytes that it had.
    pub size: Option<u64>,
    /// Where the bucket is.
    pub region: Option<String>,
}

impl ObjectNotification {
    /// Whether it stands for a folder only.
    pub fn is_folder(&self) -> bool {
        self.key.ends_with('/') && self.size == Some(0)
    }
}

impl Ingest<'_> {
    /// Embeds the documents of an object and writes their points: those of its newest version, whichever it was when the notification was
    /// sent. One that is not there any more is a failure of the report, for there is nothing to come back for.
    ///
    /// # Errors
    /// [`Stop::Permanent`]: it holds no documents; [`Stop::Retryable`]: it can be tried again, from its beginning.
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
        let message = format!("{}: it was replaced {MAX_ATTEMPTS} times while it was read", object.uri());
        Err(Stop::Retryable(Error::new(ErrorKind::ObjectReplaced, message)))
    }

    /// The documents of one version; none where there is a newer one at the end, which could have been written before this.
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
        let (version, first) =
            ObjectVersion::open(object, etag.as_deref(), region, deadline).map_err(Stop::Retryable)?;
        let source = Source::Object {
            bucket: notification.bucket.clone(),
            key: notification.key.clone(),
            etag: version.etag().to_string(),
            part: None,
        };
        let documents = self.documents(object, format, &version, first, deadline).map_err(Stop::from_source_error)?;
        let sink = sink_config.open(&source, deadline).map_err(Stop::Retryable)?;
        let Run { report, stop, .. } = self.run(sink, documents, Commit::AllOrNothing, deadline);
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
        first: Bytes,
        deadline: Deadline,
    ) -> Result<DocumentIter<'static>> {
        let reader = ObjectReader::new(version.clone(), first);
        match format {
            InputFormat::JsonLines => Ok(read_json_lines(BufReader::with_capacity(BUFFER_BYTES, reader))),
            InputFormat::Csv(delimiter) => Ok(read_csv(reader, delimiter)),
            #[cfg(feature = "arrow")]
            InputFormat::Parquet => {
                Ok(crate::pipeline::input::read_parquet(crate::aws::object_reader::ObjectBlocks::new(version.clone())))
            }
            #[cfg(not(feature = "arrow"))]
            InputFormat::Parquet => Err(Error::invalid_value("name", "this build reads no Parquet")),
            InputFormat::Text => Ok(read_all(reader, Some(object.uri()))),
            InputFormat::Audio => self.transcribe(object, version, reader, deadline),
        }
    }

    /// The segments of a recording.
    fn transcribe(
        &self,
        object: &S3Location,
        version: &ObjectVersion,
        reader: ObjectReader,
        deadline: Deadline,
    ) -> Result<DocumentIter<'static>> {
        if version.length() > MAX_OBJECT_BYTES {
            let message = format!("has {} bytes, the limit of a recording is {MAX_OBJECT_BYTES}", version.length());
            return Err(Error::new(ErrorKind::BodyTooLarge, message));
        }
        let mut audio = Vec::with_capacity(version.length() as usize);
        reader.take(MAX_OBJECT_BYTES).read_to_end(&mut audio).map_err(read_error)?;
        let segments = recording_documents(&self.jobs(deadline), &object.uri(), audio.into())?;
        Ok(from_iter(segments.into_iter().map(Ok)))
    }
}

fn timed_out(object: &S3Location, report: &Report) -> Error {
    let (documents, points) = (report.documents, report.points);
    let message = format!(
        "{}: the time ran out after {documents} documents with {points} points; it begins again from the start the next time: \
         raise the function's timeout, cut the object into smaller ones, or let a distributed map read it",
        object.uri()
    );
    Error::new(ErrorKind::Timeout, message)
}
