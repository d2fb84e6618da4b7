//! Reads consecutive little-endian values of a model file.

use bytes::Bytes;
use tealight_core::{Error, Result};

/// A position in a file. Errors name the value that is read.
pub(super) struct ByteReader<'a> {
    file: &'a Bytes,
    offset: usize,
}

impl<'a> ByteReader<'a> {
    pub(super) fn new(file: &'a Bytes, offset: usize) -> Self {
        Self { file, offset }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.offset >= self.file.len()
    }

    /// The next `count` bytes, without copying them.
    pub(super) fn read_bytes(&mut self, name: &str, count: usize) -> Result<Bytes> {
        let remaining = self.file.len() - self.offset;
        if count > remaining {
            let offset = self.offset;
            return Err(Error::invalid_model(format!(
                "file is truncated: {name} at byte {offset} needs {count} bytes; {remaining} remain"
            )));
        }
        self.offset += count;
        Ok(self.file.slice(self.offset - count..self.offset))
    }

    pub(super) fn read_array<const N: usize>(&mut self, name: &str) -> Result<[u8; N]> {
        let bytes = self.read_bytes(name, N)?;
        bytes.first_chunk().copied().ok_or_else(|| Error::internal("fewer bytes than requested"))
    }

    pub(super) fn read_u16(&mut self, name: &str) -> Result<u16> {
        Ok(u16::from_le_bytes(self.read_array(name)?))
    }

    pub(super) fn read_u32(&mut self, name: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.read_array(name)?))
    }
}
