//! An object of S3 as documents.

use super::{Extent, Failure, Ingest, Report, Run, Stop};
use crate::aws::object_reader::{ObjectReader, ObjectVersion};
use crate::aws::s3::{MAX_OBJECT_BYTES, S3Location};
use crate::pipeline::input::{Form, Stream, lines, listed, table, unread, whole};
use crate::pipeline::recording::recording_documents;
use crate::pipeline::sink::{Source, Target};
use bytes::Bytes;
use std::io::{BufReader, Read};
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};

/// Times that an object is begun, where it is replaced again and again.
const ATTEMPTS: usize = 3;
/// Bytes that are read of a line at a time.
const BUFFER: usize = 1 << 16;

/// What is told of an object that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
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

impl Notice {
    /// Whether it stands for a folder only.
    pub fn is_folder(&self) -> bool {
        self.key.ends_with('/') && self.size == Some(0)
    }
}

impl Ingest<'_> {
    /// Embeds the documents of an object and writes their points: those of its newest version, whichever it was when the notice was
    /// sent. One that is not there any more is a failure of the report, for there is nothing to come back for.
    ///
    /// # Errors
    /// [`Stop::Poison`]: it holds no documents; [`Stop::Later`]: it can be tried again, from its beginning.
    pub fn object(&self, target: &Target, notice: &Notice, deadline: Deadline) -> Result<Report, Stop> {
        let object = S3Location::new(&notice.bucket, &notice.key).map_err(Stop::Poison)?;
        let form = Form::of(&notice.key).map_err(Stop::Poison)?;
        let mut etag = notice.etag.clone();
        for _ in 0..ATTEMPTS {
            match self.version(target, &object, form, notice, etag.take(), deadline) {
                Ok(Some(report)) => return Ok(report),
                Ok(None) => {}
                Err(stop) if stop.error().kind == ErrorKind::ObjectReplaced => {}
                Err(Stop::Later(error)) if error.kind == ErrorKind::ObjectNotFound => {
                    let mut report = Report::default();
                    report.fail(Failure { number: 0, id: None, error });
                    return Ok(report);
                }
                Err(stop) => return Err(stop),
            }
        }
        let message = format!("{}: it was replaced {ATTEMPTS} times while it was read", object.uri());
        Err(Stop::Later(Error::new(ErrorKind::ObjectReplaced, message)))
    }

    /// The documents of one version; none where there is a newer one at the end, which could have been written before this.
    fn version(
        &self,
        target: &Target,
        object: &S3Location,
        form: Form,
        notice: &Notice,
        etag: Option<String>,
        deadline: Deadline,
    ) -> Result<Option<Report>, Stop> {
        let region = notice.region.as_deref();
        let (version, first) = ObjectVersion::open(object, etag.as_deref(), region, deadline).map_err(Stop::Later)?;
        let source = Source::Object {
            bucket: notice.bucket.clone(),
            key: notice.key.clone(),
            etag: version.etag().to_string(),
            part: None,
        };
        let documents = self.documents(object, form, &version, first, deadline).map_err(Stop::of_source)?;
        let sink = target.open(&source, deadline).map_err(Stop::Later)?;
        let Run { report, stop, .. } = self.run(sink, documents, Extent::Whole, deadline);
        match stop {
            None => Ok(version.is_current().map_err(Stop::Later)?.then_some(report)),
            Some(Stop::Later(error)) if error.kind == ErrorKind::Timeout => Err(Stop::Later(too_long(object, &report))),
            Some(stop) => Err(stop),
        }
    }

    fn documents(
        &self,
        object: &S3Location,
        form: Form,
        version: &ObjectVersion,
        first: Bytes,
        deadline: Deadline,
    ) -> Result<Stream<'static>> {
        let reader = ObjectReader::new(version.clone(), first);
        match form {
            Form::Lines => Ok(lines(BufReader::with_capacity(BUFFER, reader))),
            Form::Table(delimiter) => Ok(table(reader, delimiter)),
            #[cfg(feature = "arrow")]
            Form::Columns => {
                Ok(crate::pipeline::input::columns(crate::aws::object_reader::ObjectBlocks::new(version.clone())))
            }
            #[cfg(not(feature = "arrow"))]
            Form::Columns => Err(Error::invalid_value("name", "this build reads no Parquet")),
            Form::Text => Ok(whole(reader, Some(object.uri()))),
            Form::Audio => self.said(object, version, reader, deadline),
        }
    }

    /// The segments of a recording.
    fn said(
        &self,
        object: &S3Location,
        version: &ObjectVersion,
        reader: ObjectReader,
        deadline: Deadline,
    ) -> Result<Stream<'static>> {
        if version.length() > MAX_OBJECT_BYTES {
            let message = format!("has {} bytes, the limit of a recording is {MAX_OBJECT_BYTES}", version.length());
            return Err(Error::new(ErrorKind::BodyTooLarge, message));
        }
        let mut audio = Vec::with_capacity(version.length() as usize);
        reader.take(MAX_OBJECT_BYTES).read_to_end(&mut audio).map_err(unread)?;
        let segments = recording_documents(&self.jobs(deadline), &object.uri(), audio.into())?;
        Ok(listed(segments.into_iter().map(Ok)))
    }
}

fn too_long(object: &S3Location, report: &Report) -> Error {
    let (documents, points) = (report.documents, report.points);
    let message = format!(
        "{}: the time ran out after {documents} documents with {points} points; it begins again from the start the next time: \
         raise the function's timeout, cut the object into smaller ones, or let a distributed map read it",
        object.uri()
    );
    Error::new(ErrorKind::Timeout, message)
}
