//! Reads numbers and strings of a header, with every length checked against the rest of the file.

use bytes::Bytes;
use tealight_core::{Error, Result};

/// A position in a file.
pub(super) struct Cursor<'a> {
    pub file: &'a Bytes,
    pub offset: usize,
    /// Version 1 has lengths of 4 bytes, versions 2 and 3 of 8.
    pub has_u64_lengths: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a Bytes, has_u64_lengths: bool) -> Self {
        Self { file, offset: 0, has_u64_lengths }
    }

    pub(super) fn remaining(&self) -> usize {
        self.file.len() - self.offset
    }

    /// The next `n` bytes; `what` names them in errors.
    pub(super) fn read_bytes(&mut self, what: &str, n: usize) -> Result<&'a [u8]> {
        if n > self.remaining() {
            return Err(Error::invalid_model(format!(
                "GGUF {what} at byte {} needs {n} bytes; {} remain",
                self.offset,
                self.remaining()
            )));
        }
        let bytes = &self.file[self.offset..self.offset + n];
        self.offset += n;
        Ok(bytes)
    }

    pub(super) fn read_array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.read_bytes(what, N)?);
        Ok(array)
    }

    pub(super) fn read_u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.read_array(what)?))
    }

    pub(super) fn read_u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.read_array(what)?))
    }

    pub(super) fn read_length(&mut self, what: &str) -> Result<u64> {
        if self.has_u64_lengths { self.read_u64(what) } else { Ok(self.read_u32(what)? as u64) }
    }

    pub(super) fn read_bounded_length(&mut self, what: &str, limit: u64) -> Result<usize> {
        let n = self.read_length(what)?;
        if n > limit {
            return Err(Error::invalid_model(format!("GGUF {what} is {n}; the limit is {limit}")));
        }
        Ok(n as usize)
    }

    /// The bytes of a string.
    pub(super) fn read_string_bytes(&mut self, what: &str) -> Result<&'a [u8]> {
        let n = self.read_bounded_length(what, self.remaining() as u64)?;
        self.read_bytes(what, n)
    }

    pub(super) fn read_string(&mut self, what: &str) -> Result<&'a str> {
        utf8(self.read_string_bytes(what)?, what)
    }
}

pub(super) fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| Error::invalid_model(format!("GGUF {what} is not UTF-8")))
}
