//! Writing an index file, in the format that [`file`](crate::file) describes.

use crate::file::{ALIGNMENT, CHECKSUM_BLOCK, MAGIC, PREAMBLE_BYTES, VERSION};
use crate::format::{IndexHeader, Section};
use std::path::Path;
use tealight_core::files::write_atomic;
use tealight_core::{Error, Result};

/// Checksums of the blocks of a body that arrives in pieces.
struct Checksums {
    finished: Vec<u32>,
    current: crc32fast::Hasher,
    /// Bytes missing from the current block.
    missing: usize,
}

impl Checksums {
    fn new() -> Self {
        Self { finished: vec![], current: crc32fast::Hasher::new(), missing: CHECKSUM_BLOCK }
    }

    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (head, tail) = bytes.split_at(self.missing.min(bytes.len()));
            self.current.update(head);
            self.missing -= head.len();
            bytes = tail;
            if self.missing == 0 {
                self.finished.push(std::mem::take(&mut self.current).finalize());
                self.missing = CHECKSUM_BLOCK;
            }
        }
    }

    fn finish(mut self) -> Vec<u32> {
        if self.missing < CHECKSUM_BLOCK {
            self.finished.push(self.current.finalize());
        }
        self.finished
    }
}

/// Writes an index atomically: under a temporary name, then renamed. The list of sections in `header` must be empty.
///
/// # Errors
/// [`ErrorKind::Io`](tealight_core::ErrorKind::Io).
pub(crate) fn write_index(path: &Path, mut header: IndexHeader, sections: &[(Section, &[u8])]) -> Result<()> {
    let (mut end, mut checksums) = (0usize, Checksums::new());
    for (section, bytes) in sections {
        let start = end.next_multiple_of(ALIGNMENT);
        checksums.add(&[0; ALIGNMENT][..start - end]);
        checksums.add(bytes);
        header.sections.push((*section, start as u64, bytes.len() as u64));
        end = start + bytes.len();
    }
    let mut header_and_checksums =
        serde_json::to_vec(&header).map_err(|e| Error::internal(format!("cannot serialize the index header: {e}")))?;
    let length = header_and_checksums.len() as u32;
    header_and_checksums.extend(checksums.finish().iter().flat_map(|checksum| checksum.to_le_bytes()));
    let checksum = crc32fast::hash(&header_and_checksums);
    header_and_checksums
        .resize((PREAMBLE_BYTES + header_and_checksums.len()).next_multiple_of(ALIGNMENT) - PREAMBLE_BYTES, 0);
    let mut preamble = [0; PREAMBLE_BYTES];
    preamble[..8].copy_from_slice(MAGIC);
    for (offset, value) in [(8, VERSION), (12, length), (16, checksum)] {
        preamble[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
    write_atomic(path, |out| {
        out.write_all(&preamble)?;
        out.write_all(&header_and_checksums)?;
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
