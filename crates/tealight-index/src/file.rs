//! Reading an index file. The file is memory-mapped and a block of its body is verified when it is first read, so that opening
//! reads only the header and four bytes for each 64 KiB.
//!
//! ```text
//! 0   "TLINDEX\n"   version u32   length of the header u32   CRC-32 of header and checksums u32   zeros up to 64
//! 64  header: JSON of [`IndexHeader`]
//!     checksums: CRC-32 u32 of each 64 KiB of the body
//!     zeros up to a multiple of 64; the body: sections, each at a multiple of 64
//! ```
//! Numbers are little-endian.

use crate::format::{IndexHeader, Section};
use bytemuck::AnyBitPattern;
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tealight_core::mmap::map_file;
use tealight_core::{Error, ErrorKind, Result};

pub(crate) const MAGIC: &[u8; 8] = b"TLINDEX\n";
/// The supported version of the format.
pub(crate) const VERSION: u32 = 2;
pub(crate) const PREAMBLE_BYTES: usize = 64;
/// Alignment of sections, in bytes.
pub(crate) const ALIGNMENT: usize = 64;
/// Bytes that share a checksum.
pub(crate) const CHECKSUM_BLOCK: usize = 1 << 16;
const MAX_HEADER_BYTES: usize = 1 << 20;

/// A memory-mapped index file.
#[derive(Debug)]
pub(crate) struct IndexFile {
    pub(crate) header: IndexHeader,
    bytes: Bytes,
    /// Offset of the body.
    body_offset: usize,
    /// Offset of the checksums.
    checksums_offset: usize,
    /// For each block of the body, whether it has been verified.
    verified: Vec<AtomicBool>,
}

/// An error of kind [`ErrorKind::IndexLoad`]; the message begins with "index".
pub(crate) fn invalid_index(problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::IndexLoad, format!("index {problem}"))
}

impl IndexFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`ErrorKind::IndexLoad`]: the file is not an index, has another version, is truncated, or its header is corrupt.
    /// [`ErrorKind::Io`].
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes =
            map_file(path).map_err(|e| if e.kind == ErrorKind::Io { e } else { invalid_index("file is empty") })?;
        Self::from_bytes(bytes).map_err(|e| e.with_context(path.display()))
    }

    fn from_bytes(bytes: Bytes) -> Result<Self> {
        let number =
            |offset: usize| bytes.get(offset..offset + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if bytes.get(..8) != Some(MAGIC) {
            return Err(invalid_index("file has the wrong type: it does not begin with TLINDEX"));
        }
        let (Some(version), Some(length), Some(checksum)) = (number(8), number(12), number(16)) else {
            return Err(invalid_index("is truncated in its first bytes"));
        };
        if version != VERSION {
            return Err(invalid_index(format_args!("has version {version}; expected {VERSION}. Rebuild it")));
        }
        let checksums_offset = PREAMBLE_BYTES + length as usize;
        let header = bytes.get(PREAMBLE_BYTES..checksums_offset).filter(|h| h.len() <= MAX_HEADER_BYTES);
        let header =
            header.ok_or_else(|| invalid_index(format_args!("is truncated in its header of {length} bytes")))?;
        let header: IndexHeader = serde_json::from_slice(header)
            .map_err(|e| invalid_index(format_args!("is corrupt: cannot parse its header: {e}")))?;
        let length = body_length(&header)?;
        let blocks = length.div_ceil(CHECKSUM_BLOCK);
        let body_offset = (checksums_offset + 4 * blocks).next_multiple_of(ALIGNMENT);
        let expected = body_offset.checked_add(length);
        if expected != Some(bytes.len()) {
            let expected = expected.unwrap_or(usize::MAX);
            return Err(invalid_index(format_args!("is {} bytes; expected {expected}", bytes.len())));
        }
        if crc32fast::hash(&bytes[PREAMBLE_BYTES..checksums_offset + 4 * blocks]) != checksum {
            return Err(invalid_index("is corrupt: checksum mismatch in its header"));
        }
        let verified = (0..blocks).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { header, bytes, body_offset, checksums_offset, verified })
    }

    /// The bytes `range` of a section, verified.
    ///
    /// # Errors
    /// [`ErrorKind::IndexLoad`]: there is no such section, it is shorter, or its checksum does not match.
    pub(crate) fn bytes(&self, section: Section, range: Range<usize>) -> Result<&[u8]> {
        let (start, length) = self.locate(section)?;
        if range.start > range.end || range.end > length {
            return Err(invalid_index(format_args!("is corrupt: {section:?} has {length} bytes, not {range:?}")));
        }
        let range = start + range.start..start + range.end;
        self.verify_range(&range)?;
        Ok(&self.bytes[self.body_offset + range.start..self.body_offset + range.end])
    }

    pub(crate) fn has(&self, section: Section) -> bool {
        self.locate(section).is_ok()
    }

    /// A whole section, verified, as a view that keeps the mapping alive.
    ///
    /// # Errors
    /// As [`IndexFile::bytes`].
    #[cfg(feature = "graph")]
    pub(crate) fn shared_bytes(&self, section: Section) -> Result<Bytes> {
        let length = self.locate(section)?.1;
        Ok(self.bytes.slice_ref(self.bytes(section, 0..length)?))
    }

    /// The values `range` of a section, verified.
    ///
    /// # Errors
    /// As [`IndexFile::bytes`].
    pub(crate) fn values<T: AnyBitPattern>(&self, section: Section, range: Range<usize>) -> Result<&[T]> {
        let size = size_of::<T>();
        let in_bytes = |n: usize| n.checked_mul(size).ok_or_else(|| invalid_index("is corrupt: an offset overflows"));
        let bytes = self.bytes(section, in_bytes(range.start)?..in_bytes(range.end)?)?;
        bytemuck::try_cast_slice(bytes)
            .map_err(|e| invalid_index(format_args!("is corrupt: {section:?} is misaligned: {e}")))
    }

    /// The number of values of a section.
    ///
    /// # Errors
    /// There is no such section.
    pub(crate) fn count<T>(&self, section: Section) -> Result<usize> {
        Ok(self.locate(section)?.1 / size_of::<T>())
    }

    fn locate(&self, section: Section) -> Result<(usize, usize)> {
        let entry = self.header.sections.iter().find(|(s, ..)| *s == section);
        let (_, start, length) =
            entry.ok_or_else(|| invalid_index(format_args!("is corrupt: {section:?} is missing")))?;
        Ok((*start as usize, *length as usize))
    }

    /// Verifies the blocks of a range of the body that have not been verified yet.
    fn verify_range(&self, range: &Range<usize>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        for block in range.start / CHECKSUM_BLOCK..=(range.end - 1) / CHECKSUM_BLOCK {
            if self.verified[block].load(Ordering::Relaxed) {
                continue;
            }
            let start = self.body_offset + block * CHECKSUM_BLOCK;
            let bytes = &self.bytes[start..(start + CHECKSUM_BLOCK).min(self.bytes.len())];
            let expected =
                self.bytes[self.checksums_offset + 4 * block..].first_chunk().map(|b| u32::from_le_bytes(*b));
            if expected != Some(crc32fast::hash(bytes)) {
                return Err(invalid_index(format_args!("is corrupt: checksum mismatch near byte {start}")));
            }
            self.verified[block].store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Verifies the checksums of the whole file.
    ///
    /// # Errors
    /// [`ErrorKind::IndexLoad`].
    pub(crate) fn verify(&self) -> Result<()> {
        self.verify_range(&(0..self.bytes.len() - self.body_offset))
    }
}

/// The length of the body, whose sections must be in order, aligned and without gaps.
fn body_length(header: &IndexHeader) -> Result<usize> {
    let mut end = 0usize;
    for (section, start, length) in &header.sections {
        let is_next = *start == end.next_multiple_of(ALIGNMENT) as u64;
        let next = start.checked_add(*length).and_then(|end| usize::try_from(end).ok()).filter(|_| is_next);
        end = next.filter(|end| *end < usize::MAX / 2).ok_or_else(|| {
            invalid_index(format_args!(
                "is corrupt: {section:?}, {length} bytes at {start}, does not follow its predecessor"
            ))
        })?;
    }
    Ok(end)
}
