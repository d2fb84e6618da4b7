//! The file of an index: a header, the checksums of its pieces, and sections. It is mapped, and a piece is checked when it is
//! first read, so that opening takes as long for a million rows as for ten.
//!
//! ```text
//! 0   "TLINDEX\n"   version u32   bytes of the header u32   CRC-32 of header and checksums u32   zeros up to 64
//! 64  header: JSON of [`Header`]
//!     checksums: CRC-32 u32 of each 64 KiB of the body
//!     zeros up to a multiple of 64; the body: sections, each at a multiple of 64
//! ```
//! Numbers are little-endian.

use bytemuck::AnyBitPattern;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tealight_core::files::write_atomic;
use tealight_core::mmap::map_file;
use tealight_core::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"TLINDEX\n";
/// Files of other versions are refused.
const VERSION: u32 = 2;
const PREAMBLE: usize = 64;
/// Sections begin at multiples of it.
const ALIGNMENT: usize = 64;
/// Bytes that have a checksum of their own.
const PIECE: usize = 1 << 16;
/// No header is longer.
const LONGEST_HEADER: usize = 1 << 20;

/// How alike a query and a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The cosine of their angle.
    Cosine,
    /// Their product.
    Dot,
    /// Less the square of their distance.
    L2,
}

/// What a search goes through first; its best rows are then scored in float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Products of int8 codes.
    Int8,
    /// Products of codes of 4 bits: half of the memory, and of the time.
    Int4,
    /// Signs: a seventh of the memory, for models whose signs say enough.
    Binary,
}

/// Parts of the body, by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Codes of blocks of 16 rows.
    Codes,
    /// What blocks have besides codes.
    Terms,
    /// Codes of 4 bits of blocks of 16 rows.
    Codes4,
    /// What those blocks have besides codes.
    Terms4,
    /// Signs of blocks of 16 rows less the mean of all rows.
    Signs,
    /// What those blocks have besides signs.
    SignTerms,
    /// The mean of all rows, f32.
    Mean,
    /// Rows as half floats, each over its largest magnitude.
    Halves,
    /// These magnitudes, f32.
    Largest,
    /// Documents as JSON, one behind the other.
    Documents,
    /// Where each document begins, u64, and the end.
    Starts,
    /// Words of the documents, one behind the other, in order.
    Words,
    /// Where each word begins in `Words` and in `Postings`, two u64, and the ends.
    WordStarts,
    /// Rows that a word is in, and how often: two u32, in order of the rows.
    Postings,
    /// Words of each document, u32.
    Lengths,
    /// A graph of neighbours: what a code stands for, f32; zeros up to 64; usearch's bytes.
    Graph,
}

impl Part {
    /// Codes of blocks of 16 rows, and what blocks have besides.
    pub const INT8: [Part; 2] = [Part::Codes, Part::Terms];
    /// The same for codes of 4 bits.
    pub const INT4: [Part; 2] = [Part::Codes4, Part::Terms4];
    /// The same for signs.
    pub const BINARY: [Part; 2] = [Part::Signs, Part::SignTerms];
}

/// What an index says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The name of the model that made the vectors; none where they came from outside.
    pub model: Option<String>,
    /// Values of a row.
    pub dimension: usize,
    /// How rows are scored.
    pub metric: Metric,
    /// What is gone through first.
    pub precision: Precision,
    /// Rows.
    pub rows: usize,
    /// Name, place in the body and length in bytes of each section.
    sections: Vec<(Part, u64, u64)>,
}

impl Header {
    /// Of an index to be written.
    pub fn new(model: Option<String>, dimension: usize, metric: Metric, precision: Precision, rows: usize) -> Self {
        Self { model, dimension, metric, precision, rows, sections: vec![] }
    }
}

/// A mapped index.
#[derive(Debug)]
pub struct File {
    /// What it says about itself.
    pub header: Header,
    bytes: Bytes,
    /// Where the body begins.
    body: usize,
    /// Where the checksums begin.
    sums: usize,
    checked: Vec<AtomicBool>,
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::IndexLoad, format!("the index {what}"))
}

impl File {
    /// Opens a file; reads its header only.
    ///
    /// # Errors
    /// [`ErrorKind::IndexLoad`]: it is no index, of another version, cut, or its header is damaged. [`ErrorKind::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = map_file(path).map_err(|e| if e.kind == ErrorKind::Io { e } else { damaged("file is empty") })?;
        Self::of(bytes).map_err(|e| e.with_context(path.display()))
    }

    fn of(bytes: Bytes) -> Result<Self> {
        let number = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if bytes.get(..8) != Some(MAGIC) {
            return Err(damaged("file does not begin as an index does"));
        }
        let (Some(version), Some(length), Some(sum)) = (number(8), number(12), number(16)) else {
            return Err(damaged("is cut in its first bytes"));
        };
        if version != VERSION {
            return Err(damaged(format_args!("has the version {version}, this tealight reads {VERSION}")));
        }
        let sums = PREAMBLE + length as usize;
        let header = bytes.get(PREAMBLE..sums).filter(|h| h.len() <= LONGEST_HEADER);
        let header = header.ok_or_else(|| damaged(format_args!("has a header of {length} bytes and is cut in it")))?;
        let header: Header = serde_json::from_slice(header)
            .map_err(|e| damaged(format_args!("has a header that cannot be read: {e}")))?;
        let length = body_length(&header)?;
        let pieces = length.div_ceil(PIECE);
        let body = (sums + 4 * pieces).next_multiple_of(ALIGNMENT);
        let expected = body.checked_add(length);
        if expected != Some(bytes.len()) {
            return Err(damaged(format_args!(
                "has {} bytes, expected {}",
                bytes.len(),
                expected.unwrap_or(usize::MAX)
            )));
        }
        if crc32fast::hash(&bytes[PREAMBLE..sums + 4 * pieces]) != sum {
            return Err(damaged("has a header that is not what was written"));
        }
        let checked = (0..pieces).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { header, bytes, body, sums, checked })
    }

    /// The bytes `range` of a section, checked.
    ///
    /// # Errors
    /// There is no such section, it is shorter, or a piece of it is not what was written.
    pub fn bytes(&self, part: Part, range: Range<usize>) -> Result<&[u8]> {
        let (start, length) = self.place(part)?;
        if range.start > range.end || range.end > length {
            return Err(damaged(format_args!("has {length} bytes of {part:?}, asked for {range:?}")));
        }
        let range = start + range.start..start + range.end;
        self.check(&range)?;
        Ok(&self.bytes[self.body + range.start..self.body + range.end])
    }

    /// Whether there is a section.
    pub fn has(&self, part: Part) -> bool {
        self.place(part).is_ok()
    }

    /// All of a section, checked, with a share in the mapping.
    ///
    /// # Errors
    /// As of [`File::bytes`].
    #[cfg(feature = "graph")]
    pub fn shared(&self, part: Part) -> Result<Bytes> {
        let length = self.place(part)?.1;
        Ok(self.bytes.slice_ref(self.bytes(part, 0..length)?))
    }

    /// The values `range` of a section, checked.
    ///
    /// # Errors
    /// As of [`File::bytes`].
    pub fn values<T: AnyBitPattern>(&self, part: Part, range: Range<usize>) -> Result<&[T]> {
        let size = size_of::<T>();
        let in_bytes = |n: usize| n.checked_mul(size).ok_or_else(|| damaged("is asked for more than there can be"));
        let bytes = self.bytes(part, in_bytes(range.start)?..in_bytes(range.end)?)?;
        bytemuck::try_cast_slice(bytes).map_err(|e| damaged(format_args!("has {part:?} at an odd place: {e}")))
    }

    /// How many values a section has.
    ///
    /// # Errors
    /// There is no such section.
    pub fn count<T>(&self, part: Part) -> Result<usize> {
        Ok(self.place(part)?.1 / size_of::<T>())
    }

    fn place(&self, part: Part) -> Result<(usize, usize)> {
        let found = self.header.sections.iter().find(|(p, ..)| *p == part);
        let (_, start, length) = found.ok_or_else(|| damaged(format_args!("has no {part:?}")))?;
        Ok((*start as usize, *length as usize))
    }

    /// Checks the pieces of a range of the body that were not yet.
    fn check(&self, range: &Range<usize>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        for piece in range.start / PIECE..=(range.end - 1) / PIECE {
            if self.checked[piece].load(Ordering::Relaxed) {
                continue;
            }
            let start = self.body + piece * PIECE;
            let bytes = &self.bytes[start..(start + PIECE).min(self.bytes.len())];
            let sum = self.bytes[self.sums + 4 * piece..].first_chunk().map(|b| u32::from_le_bytes(*b));
            if sum != Some(crc32fast::hash(bytes)) {
                return Err(damaged(format_args!("is not what was written, near its byte {start}")));
            }
            self.checked[piece].store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Checks all of it.
    ///
    /// # Errors
    /// A piece is not what was written.
    pub fn check_all(&self) -> Result<()> {
        self.check(&(0..self.bytes.len() - self.body))
    }
}

/// Bytes of the body that sections lie in, in order, without overlap.
fn body_length(header: &Header) -> Result<usize> {
    let mut end = 0usize;
    for (part, start, length) in &header.sections {
        let fits = *start == end.next_multiple_of(ALIGNMENT) as u64;
        let next = start.checked_add(*length).and_then(|end| usize::try_from(end).ok()).filter(|_| fits);
        end = next.filter(|end| *end < usize::MAX / 2).ok_or_else(|| {
            damaged(format_args!("has {length} bytes of {part:?} at {start}, which is not behind what comes before"))
        })?;
    }
    Ok(end)
}

/// Writes an index: under another name first, then renamed.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn write(path: &Path, mut header: Header, sections: &[(Part, &[u8])]) -> Result<()> {
    let (mut end, mut sums, mut piece, mut left) = (0usize, vec![], crc32fast::Hasher::new(), PIECE);
    let mut add = |mut bytes: &[u8]| {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            piece.update(now);
            left -= now.len();
            bytes = later;
            if left == 0 {
                sums.push(std::mem::take(&mut piece).finalize());
                left = PIECE;
            }
        }
    };
    for (part, bytes) in sections {
        let start = end.next_multiple_of(ALIGNMENT);
        add(&[0; ALIGNMENT][..start - end]);
        add(bytes);
        header.sections.push((*part, start as u64, bytes.len() as u64));
        end = start + bytes.len();
    }
    if left < PIECE {
        sums.push(piece.finalize());
    }
    let mut head =
        serde_json::to_vec(&header).map_err(|e| Error::internal(format!("the header of an index is not JSON: {e}")))?;
    let length = head.len() as u32;
    head.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
    let sum = crc32fast::hash(&head);
    head.resize((PREAMBLE + head.len()).next_multiple_of(ALIGNMENT) - PREAMBLE, 0);
    let mut preamble = [0; PREAMBLE];
    preamble[..8].copy_from_slice(MAGIC);
    for (at, value) in [(8, VERSION), (12, length), (16, sum)] {
        preamble[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    write_atomic(path, |out| {
        out.write_all(&preamble)?;
        out.write_all(&head)?;
        let mut end = 0usize;
        for (_, bytes) in sections {
            let start = end.next_multiple_of(ALIGNMENT);
            out.write_all(&[0; ALIGNMENT][..start - end])?;
            out.write_all(bytes)?;
            end = start + bytes.len();
        }
        Ok(())
    })
}
