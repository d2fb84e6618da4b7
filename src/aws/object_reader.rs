//! One version of an S3 object, as a stream or as a file with random access, read in blocks.
//!
//! Each block is a separate request. A broken connection therefore loses at most one block, no connection is open while a block is
//! being processed, and only one block of a stream is in memory. Every request names the version's ETag: if the object is replaced
//! meanwhile, reading fails instead of mixing two versions.

use super::s3::{BASE_DELAY, MAX_ATTEMPTS, S3Location, error_message};
use super::{region, upstream_error};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use std::io::Read;
use std::time::Duration;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};

/// Bytes per block of a stream.
const BLOCK_BYTES: u64 = 8 << 20;
/// Timeout of a request. Bytes that arrived before it are used.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// Opens the version with this ETag, or the newest one, and reads its first block. `region_hint` is the region that an event
    /// names.
    ///
    /// # Errors
    /// [`ErrorKind::ObjectNotFound`], [`ErrorKind::ObjectDenied`]; [`ErrorKind::ObjectReplaced`]: the object has another ETag;
    /// [`ErrorKind::Upstream`], [`ErrorKind::Timeout`].
    pub fn open(
        object: &S3Location,
        etag: Option<&str>,
        region_hint: Option<&str>,
        deadline: Deadline,
    ) -> Result<(Self, Bytes)> {
        let region = region_hint.filter(|name| is_region(name)).map_or_else(region, |name| Ok(name.to_string()))?;
        let etag = etag.map(quote).unwrap_or_default();
        let mut this = Self { object: object.clone(), etag, length: BLOCK_BYTES, region, deadline };
        let first = this.fetch(0, BLOCK_BYTES).map_err(|e| object.with_location(e))?;
        Ok((this, first))
    }

    /// The ETag without quotation marks.
    pub fn etag(&self) -> &str {
        self.etag.trim_matches('"')
    }

    /// Size in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads `length` bytes from `start`, or fewer at the end of the object.
    ///
    /// # Errors
    /// [`ErrorKind::ObjectNotFound`], [`ErrorKind::ObjectDenied`], [`ErrorKind::ObjectReplaced`], [`ErrorKind::Upstream`],
    /// [`ErrorKind::Timeout`].
    pub fn block(&self, start: u64, length: u64) -> Result<Bytes> {
        let length = length.min(self.length.saturating_sub(start));
        if length == 0 {
            return Ok(Bytes::new());
        }
        self.clone().fetch(start, length).map_err(|e| self.object.with_location(e))
    }

    /// Whether no newer version exists; also true if the object was deleted.
    ///
    /// # Errors
    /// [`ErrorKind::ObjectDenied`], [`ErrorKind::Upstream`], [`ErrorKind::Timeout`].
    pub fn is_current(&self) -> Result<bool> {
        let mut this = self.clone();
        let head = |this: &mut Self, _: &mut Vec<u8>| {
            let response = this.request(Method::HEAD, &[("if-match", &self.etag)])?;
            this.check_status(response).map(drop)
        };
        match this.retry(&mut vec![], head) {
            Ok(()) => Ok(true),
            Err(error) if error.kind == ErrorKind::ObjectNotFound => Ok(true),
            Err(error) if error.kind == ErrorKind::ObjectReplaced => Ok(false),
            Err(error) => Err(self.object.with_location(error)),
        }
    }

    /// Reads bytes from `start` on, with as many requests as necessary.
    fn fetch(&mut self, start: u64, length: u64) -> Result<Bytes> {
        let mut bytes = vec![];
        let get = |this: &mut Self, bytes: &mut Vec<u8>| this.get(start, length, bytes);
        self.retry(&mut bytes, get)?;
        Ok(bytes.into())
    }

    /// Calls `request` until it succeeds, or fails [`MAX_ATTEMPTS`] times in a row without adding bytes.
    fn retry(
        &mut self,
        bytes: &mut Vec<u8>,
        mut request: impl FnMut(&mut Self, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let (mut attempt, mut delay) = (1, BASE_DELAY);
        loop {
            let before = bytes.len();
            let error = match request(self, bytes) {
                Err(error) if error.kind == ErrorKind::Upstream => error,
                outcome => return outcome,
            };
            if bytes.len() > before {
                (attempt, delay) = (1, BASE_DELAY);
            }
            if attempt == MAX_ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
            std::thread::sleep(self.deadline.remaining(delay));
            delay *= 2;
        }
    }

    /// Sends one request for the missing bytes and appends what arrives.
    fn get(&mut self, start: u64, length: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let range = format!("bytes={}-{}", start + bytes.len() as u64, start + length - 1);
        let etag = self.etag.clone();
        let mut headers = vec![("range", range.as_str())];
        if !etag.is_empty() {
            headers.push(("if-match", &etag));
        }
        let response = self.request(Method::GET, &headers)?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && start == 0 && bytes.is_empty() {
            // S3 rejects every range of an empty object.
            self.length = 0;
            return Ok(());
        }
        let mut response = self.check_status(response)?;
        if response.status() != StatusCode::PARTIAL_CONTENT && start + bytes.len() as u64 > 0 {
            return Err(upstream_error("S3 ignored the requested byte range"));
        }
        if start == 0 {
            self.store_metadata(&response)?;
        }
        let expected = length.min(self.length.saturating_sub(start));
        let missing = expected - bytes.len() as u64;
        response.body_mut().as_reader().take(missing).read_to_end(bytes).map_err(upstream_error)?;
        if bytes.len() as u64 != expected {
            return Err(upstream_error("connection closed before the end of the response"));
        }
        Ok(())
    }

    /// Stores size and ETag from the first response.
    fn store_metadata(&mut self, response: &Response<ureq::Body>) -> Result<()> {
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let length = match header("content-range") {
            Some(range) => range.rsplit('/').next(),
            None => header("content-length"),
        };
        self.length = length
            .and_then(|l| l.parse().ok())
            .ok_or_else(|| upstream_error("S3 did not return the size of the object"))?;
        let etag = header("etag").ok_or_else(|| upstream_error("S3 did not return the ETag of the object"))?;
        self.etag = quote(etag);
        Ok(())
    }

    fn request(&self, method: Method, headers: &[(&'static str, &str)]) -> Result<Response<ureq::Body>> {
        let remaining = self.deadline.remaining(REQUEST_TIMEOUT);
        if remaining.is_zero() {
            return Err(Error::new(ErrorKind::Timeout, "deadline exceeded while reading the object"));
        }
        self.object.request(method, &self.region, headers, remaining)
    }

    /// Converts error statuses to errors. If the bucket is in another region, the next attempt goes there.
    fn check_status(&mut self, mut response: Response<ureq::Body>) -> Result<Response<ureq::Body>> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let other_region = response.headers().get("x-amz-bucket-region").and_then(|v| v.to_str().ok());
        let other_region = other_region.filter(|name| is_region(name) && *name != self.region).map(String::from);
        let message = error_message(&mut response);
        if let Some(other_region) = other_region {
            self.region = other_region;
            return Err(upstream_error(message));
        }
        Err(match status {
            // If the object was deleted from a versioned bucket, S3 returns 405 for a request with an ETag, otherwise 404.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Error::new(ErrorKind::ObjectNotFound, message),
            StatusCode::FORBIDDEN => Error::new(ErrorKind::ObjectDenied, message),
            StatusCode::PRECONDITION_FAILED => {
                Error::new(ErrorKind::ObjectReplaced, format!("object changed while being read: {message}"))
            }
            _ => upstream_error(message),
        })
    }
}

fn quote(etag: &str) -> String {
    format!("\"{}\"", etag.trim_matches('"'))
}

/// Whether this can be the name of a region, which cannot change the host or path of a URL.
fn is_region(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Reads a version from a position to its end.
#[derive(Debug)]
pub struct ObjectReader {
    version: ObjectVersion,
    block: Bytes,
    /// Start of the next block.
    next: u64,
    /// Size of the next block.
    block_bytes: u64,
}

impl ObjectReader {
    /// Reads from the beginning; `first` is the first block.
    pub fn new(version: ObjectVersion, first: Bytes) -> Self {
        Self { next: first.len() as u64, version, block: first, block_bytes: BLOCK_BYTES }
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.block.is_empty() {
            // Frees the previous block before the next one is read.
            self.block = Bytes::new();
            self.block = self.version.block(self.next, self.block_bytes).map_err(std::io::Error::other)?;
            self.next += self.block.len() as u64;
        }
        let part = self.block.split_to(buffer.len().min(self.block.len()));
        buffer[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

#[cfg(feature = "arrow")]
pub use columns::ObjectBlocks;

/// Random access, as Parquet needs it.
#[cfg(feature = "arrow")]
mod columns {
    use super::*;
    use bytes::{Buf, BytesMut};
    use parquet::errors::ParquetError;
    use parquet::file::reader::{ChunkReader, Length};
    use std::collections::VecDeque;
    use std::sync::{Mutex, PoisonError};

    /// Bytes per block. Columns are read in parallel at different positions, so blocks are smaller than those of a stream.
    const BLOCK_BYTES: u64 = 1 << 20;
    /// Cached blocks.
    const MAX_BLOCKS: usize = 64;

    /// Random access to a version, with a cache of blocks.
    #[derive(Debug)]
    pub struct ObjectBlocks {
        version: ObjectVersion,
        /// Block numbers and contents, the most recently used last.
        cached: Mutex<VecDeque<(u64, Bytes)>>,
    }

    impl ObjectBlocks {
        /// Reads nothing yet.
        pub fn new(version: ObjectVersion) -> Self {
            Self { version, cached: Mutex::default() }
        }

        fn block(&self, number: u64) -> Result<Bytes> {
            let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
            let block = match cached.iter().position(|(n, _)| *n == number).and_then(|i| cached.remove(i)) {
                Some((_, block)) => block,
                None => self.version.block(number * BLOCK_BYTES, BLOCK_BYTES)?,
            };
            cached.push_back((number, block.clone()));
            if cached.len() > MAX_BLOCKS {
                cached.pop_front();
            }
            Ok(block)
        }

        /// The bytes from `start` to the end of its block.
        fn block_from(&self, start: u64) -> Result<Bytes> {
            let mut block = self.block(start / BLOCK_BYTES)?;
            block.advance(block.len().min((start % BLOCK_BYTES) as usize));
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
            let block = self.block_from(start).map_err(parquet_error)?;
            Ok(ObjectReader { next: start + block.len() as u64, version, block, block_bytes: BLOCK_BYTES })
        }

        fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
            let mut bytes = BytesMut::with_capacity(length.min(self.version.length as usize));
            while bytes.len() < length {
                let mut next = self.block_from(start + bytes.len() as u64).map_err(parquet_error)?;
                if next.is_empty() {
                    return Err(ParquetError::EOF(format!("object has fewer than {length} bytes from offset {start}")));
                }
                next.truncate(length - bytes.len());
                bytes.extend_from_slice(&next);
            }
            Ok(bytes.freeze())
        }
    }

    fn parquet_error(error: Error) -> ParquetError {
        ParquetError::External(Box::new(error))
    }
}
