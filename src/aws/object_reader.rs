//! Objects of S3 as streams and as files: one version of an object, read in blocks.
//!
//! Each block is a request of its own, so that a connection that is cut costs no more than what is left of a block, none stays open
//! while a block is worked on, and no more than a block is in memory. Every request names the version's ETag: an object that is
//! replaced meanwhile is an error, never a mixture.

use super::s3::{ATTEMPTS, BASE_DELAY, S3Location, error_message};
use super::{region, upstream_error};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use std::io::Read;
use std::time::Duration;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};

/// Bytes of a block of a stream.
const BLOCK: u64 = 8 << 20;
/// How long a request may take. What came until then is kept.
const REQUEST_TIME: Duration = Duration::from_secs(60);

/// One version of an object.
#[derive(Debug, Clone)]
pub struct ObjectVersion {
    object: S3Location,
    etag: String,
    length: u64,
    region: String,
    deadline: Deadline,
}

impl ObjectVersion {
    /// The version with this ETag, or the newest; with its first block.
    ///
    /// # Errors
    /// [`ErrorKind::ObjectNotFound`], [`ErrorKind::ObjectDenied`]; [`ErrorKind::ObjectReplaced`] where the object has another ETag;
    /// [`ErrorKind::Upstream`], [`ErrorKind::Timeout`].
    pub fn open(
        object: &S3Location,
        etag: Option<&str>,
        hint: Option<&str>,
        deadline: Deadline,
    ) -> Result<(Self, Bytes)> {
        let region = hint.filter(|hint| is_region(hint)).map_or_else(region, |hint| Ok(hint.to_string()))?;
        let etag = etag.map(quoted).unwrap_or_default();
        let mut this = Self { object: object.clone(), etag, length: BLOCK, region, deadline };
        let first = this.fetch(0, BLOCK).map_err(|e| object.with_location(e))?;
        Ok((this, first))
    }

    /// Its ETag, without quotation marks.
    pub fn etag(&self) -> &str {
        self.etag.trim_matches('"')
    }

    /// Bytes that it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Some of its bytes, as many as there are.
    ///
    /// # Errors
    /// As of [`ObjectVersion::open`].
    pub fn block(&self, start: u64, length: u64) -> Result<Bytes> {
        let length = length.min(self.length.saturating_sub(start));
        if length == 0 {
            return Ok(Bytes::new());
        }
        self.clone().fetch(start, length).map_err(|e| self.object.with_location(e))
    }

    /// Whether it is still the newest. One that was deleted since then has no newer one either.
    ///
    /// # Errors
    /// [`ErrorKind::ObjectDenied`], [`ErrorKind::Upstream`], [`ErrorKind::Timeout`].
    pub fn is_current(&self) -> Result<bool> {
        let mut this = self.clone();
        let head = |this: &mut Self, _: &mut Vec<u8>| {
            let reply = this.request(Method::HEAD, &[("if-match", &self.etag)])?;
            this.checked(reply).map(drop)
        };
        match this.retry(&mut vec![], head) {
            Ok(()) => Ok(true),
            Err(error) if error.kind == ErrorKind::ObjectNotFound => Ok(true),
            Err(error) if error.kind == ErrorKind::ObjectReplaced => Ok(false),
            Err(error) => Err(self.object.with_location(error)),
        }
    }

    /// Bytes from `start` on, by as many requests as it takes.
    fn fetch(&mut self, start: u64, length: u64) -> Result<Bytes> {
        let mut bytes = vec![];
        let got = |this: &mut Self, bytes: &mut Vec<u8>| this.get(start, length, bytes);
        self.retry(&mut bytes, got)?;
        Ok(bytes.into())
    }

    /// Calls `ask` until it succeeds, or has failed too often without more bytes.
    fn retry(&mut self, bytes: &mut Vec<u8>, mut ask: impl FnMut(&mut Self, &mut Vec<u8>) -> Result<()>) -> Result<()> {
        let (mut attempt, mut pause) = (1, BASE_DELAY);
        loop {
            let before = bytes.len();
            let error = match ask(self, bytes) {
                Err(error) if error.kind == ErrorKind::Upstream => error,
                done => return done,
            };
            if bytes.len() > before {
                (attempt, pause) = (1, BASE_DELAY);
            }
            if attempt == ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
            std::thread::sleep(self.deadline.remaining(pause));
            pause *= 2;
        }
    }

    /// Appends what one request brings of what is missing.
    fn get(&mut self, start: u64, length: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let range = format!("bytes={}-{}", start + bytes.len() as u64, start + length - 1);
        let etag = self.etag.clone();
        let mut headers = vec![("range", range.as_str())];
        if !etag.is_empty() {
            headers.push(("if-match", &etag));
        }
        let reply = self.request(Method::GET, &headers)?;
        if reply.status() == StatusCode::RANGE_NOT_SATISFIABLE && start == 0 && bytes.is_empty() {
            // An object without a byte has no range.
            self.length = 0;
            return Ok(());
        }
        let mut reply = self.checked(reply)?;
        if reply.status() != StatusCode::PARTIAL_CONTENT && start + bytes.len() as u64 > 0 {
            return Err(upstream_error("S3 answers with other bytes than were asked for"));
        }
        if start == 0 {
            self.store_metadata(&reply)?;
        }
        let wanted = length.min(self.length.saturating_sub(start));
        let left = wanted - bytes.len() as u64;
        reply.body_mut().as_reader().take(left).read_to_end(bytes).map_err(upstream_error)?;
        match bytes.len() as u64 == wanted {
            true => Ok(()),
            false => Err(upstream_error("the connection ended early")),
        }
    }

    /// Keeps what the first reply says of the object.
    fn store_metadata(&mut self, reply: &Response<ureq::Body>) -> Result<()> {
        let header = |name: &str| reply.headers().get(name).and_then(|v| v.to_str().ok());
        let length = match header("content-range") {
            Some(range) => range.rsplit('/').next(),
            None => header("content-length"),
        };
        self.length =
            length.and_then(|l| l.parse().ok()).ok_or_else(|| upstream_error("S3 does not say how long it is"))?;
        let etag = header("etag").ok_or_else(|| upstream_error("S3 does not say which version it is"))?;
        self.etag = quoted(etag);
        Ok(())
    }

    fn request(&self, method: Method, headers: &[(&'static str, &str)]) -> Result<Response<ureq::Body>> {
        let left = self.deadline.remaining(REQUEST_TIME);
        if left.is_zero() {
            return Err(Error::new(ErrorKind::Timeout, "there is no time left to read it"));
        }
        self.object.request(method, &self.region, headers, left)
    }

    /// A reply that has what was asked for.
    fn checked(&mut self, mut reply: Response<ureq::Body>) -> Result<Response<ureq::Body>> {
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let elsewhere = reply.headers().get("x-amz-bucket-region").and_then(|v| v.to_str().ok());
        let elsewhere = elsewhere.filter(|name| is_region(name) && *name != self.region).map(String::from);
        let message = error_message(&mut reply);
        if let Some(elsewhere) = elsewhere {
            self.region = elsewhere;
            return Err(upstream_error(message));
        }
        Err(match status {
            // Deleted in a bucket with versions: S3 answers 405 where the version is named, 404 otherwise.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Error::new(ErrorKind::ObjectNotFound, message),
            StatusCode::FORBIDDEN => Error::new(ErrorKind::ObjectDenied, message),
            StatusCode::PRECONDITION_FAILED => {
                Error::new(ErrorKind::ObjectReplaced, format!("it was replaced while it was read: {message}"))
            }
            _ => upstream_error(message),
        })
    }
}

fn quoted(etag: &str) -> String {
    format!("\"{}\"", etag.trim_matches('"'))
}

/// Whether a name can be a region's, and so cannot lead elsewhere in an address.
fn is_region(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// A version from some place to its end.
#[derive(Debug)]
pub struct ObjectReader {
    version: ObjectVersion,
    block: Bytes,
    /// Where the next block begins.
    next: u64,
    /// Bytes of the next block.
    size: u64,
}

impl ObjectReader {
    /// From its beginning, with its first block.
    pub fn new(version: ObjectVersion, first: Bytes) -> Self {
        Self { next: first.len() as u64, version, block: first, size: BLOCK }
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.block.is_empty() {
            // Lets go of the last one before the next is there.
            self.block = Bytes::new();
            self.block = self.version.block(self.next, self.size).map_err(std::io::Error::other)?;
            self.next += self.block.len() as u64;
        }
        let part = self.block.split_to(buffer.len().min(self.block.len()));
        buffer[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

#[cfg(feature = "arrow")]
pub use columns::ObjectBlocks;

/// Reading here and there, as files in columns are read.
#[cfg(feature = "arrow")]
mod columns {
    use super::*;
    use bytes::{Buf, BytesMut};
    use parquet::errors::ParquetError;
    use parquet::file::reader::{ChunkReader, Length};
    use std::collections::VecDeque;
    use std::sync::{Mutex, PoisonError};

    /// Bytes of a block: columns are read side by side, each from a place of its own.
    const BLOCK: u64 = 1 << 20;
    /// ObjectBlocks in memory.
    const BLOCKS: usize = 64;

    /// A version, any part of which can be read.
    #[derive(Debug)]
    pub struct ObjectBlocks {
        version: ObjectVersion,
        /// Numbers and contents, the latest last.
        held: Mutex<VecDeque<(u64, Bytes)>>,
    }

    impl ObjectBlocks {
        /// Of a version.
        pub fn new(version: ObjectVersion) -> Self {
            Self { version, held: Mutex::default() }
        }

        fn block(&self, number: u64) -> Result<Bytes> {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let block = match held.iter().position(|(n, _)| *n == number).and_then(|at| held.remove(at)) {
                Some((_, block)) => block,
                None => self.version.block(number * BLOCK, BLOCK)?,
            };
            held.push_back((number, block.clone()));
            if held.len() > BLOCKS {
                held.pop_front();
            }
            Ok(block)
        }

        /// From here to the end of a block.
        fn rest(&self, at: u64) -> Result<Bytes> {
            let mut block = self.block(at / BLOCK)?;
            block.advance(block.len().min((at % BLOCK) as usize));
            Ok(block)
        }
    }

    impl Length for ObjectBlocks {
        fn len(&self) -> u64 {
            self.version.length
        }
    }

    impl ChunkReader for ObjectBlocks {
        type T = ObjectReader;

        fn get_read(&self, start: u64) -> parquet::errors::Result<ObjectReader> {
            let version = self.version.clone();
            let block = self.rest(start).map_err(external)?;
            Ok(ObjectReader { next: start + block.len() as u64, version, block, size: BLOCK })
        }

        fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
            let mut bytes = BytesMut::with_capacity(length.min(self.version.length as usize));
            while bytes.len() < length {
                let mut rest = self.rest(start + bytes.len() as u64).map_err(external)?;
                if rest.is_empty() {
                    return Err(ParquetError::EOF(format!("there are no {length} bytes from {start} on")));
                }
                rest.truncate(length - bytes.len());
                bytes.extend_from_slice(&rest);
            }
            Ok(bytes.freeze())
        }
    }

    fn external(error: Error) -> ParquetError {
        ParquetError::External(Box::new(error))
    }
}
