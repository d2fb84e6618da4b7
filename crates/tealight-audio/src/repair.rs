//! Presents a file to Symphonia with corrected headers. A recording that was truncated or written to a pipe has headers whose
//! lengths do not match the file; players use the actual length, but Symphonia rejects such files. Also renames RF64 to RIFF.

use bytes::Bytes;
use std::io::{Cursor, Read, Result, Seek, SeekFrom};
use std::ops::Range;
use symphonia::core::io::MediaSource;

/// A WAV length that means "until the end of the file".
const UNKNOWN_LENGTH: [u8; 4] = [0xff; 4];
/// Magic number of WAV files over 4 GiB (EBU Tech 3306). Their 32-bit lengths are unknown; a `ds64` chunk has the 64-bit ones.
const RF64: &[u8] = b"RF64";
/// WAV format tags of streams that need no container: MP2, MP3, AAC.
const STREAM_FORMATS: [u16; 3] = [0x50, 0x55, 0xff];
/// Matroska element ids (RFC 9559): the file header, and the segment, which contains everything else.
const EBML: u32 = 0x1a45_dfa3;
const SEGMENT: u32 = 0x1853_8067;

/// Replacement bytes at an offset of the file.
type Patch = (usize, Vec<u8>);

/// A file with patches applied while it is read.
pub(crate) struct RepairedSource {
    file: Cursor<Bytes>,
    patches: Vec<Patch>,
    /// False for truncated Matroska files: their header refers to an index that is missing.
    is_seekable: bool,
}

impl RepairedSource {
    pub(crate) fn new(file: Bytes) -> Self {
        let is_matroska = file.starts_with(&EBML.to_be_bytes());
        let patches = match file.get(..12) {
            _ if is_wav(&file) => wav_patches(&file),
            _ if is_matroska => matroska_patch(&file).into_iter().collect(),
            Some([_, _, _, _, b'f', b't', b'y', b'p', ..]) => mp4_patch(&file).into_iter().collect(),
            _ => vec![],
        };
        let is_seekable = !is_matroska || patches.is_empty();
        Self { file: Cursor::new(file), patches, is_seekable }
    }
}

impl Read for RepairedSource {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let start = self.file.position() as usize;
        let count = self.file.read(out)?;
        for (offset, bytes) in &self.patches {
            let overlap: Range<usize> = start.max(*offset)..(start + count).min(offset + bytes.len());
            if !overlap.is_empty() {
                out[overlap.start - start..overlap.end - start]
                    .copy_from_slice(&bytes[overlap.start - offset..overlap.end - offset]);
            }
        }
        Ok(count)
    }
}

impl Seek for RepairedSource {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.file.seek(to)
    }
}

impl MediaSource for RepairedSource {
    fn is_seekable(&self) -> bool {
        self.is_seekable
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.file.get_ref().len() as u64)
    }
}

fn is_wav(file: &[u8]) -> bool {
    (file.starts_with(b"RIFF") || file.starts_with(RF64)) && file.get(8..12) == Some(b"WAVE")
}

/// The stream inside a WAV file if it needs no container; otherwise the file itself.
pub(crate) fn unwrap_riff(file: Bytes) -> Bytes {
    let format = file.get(20..22).map(|two| u16::from_le_bytes([two[0], two[1]]));
    let is_stream =
        is_wav(&file) && file.get(12..16) == Some(b"fmt ") && format.is_some_and(|f| STREAM_FORMATS.contains(&f));
    match data_chunk(&file).filter(|_| is_stream) {
        Some(offset) => file.slice((offset + 8).min(file.len())..),
        None => file,
    }
}

fn u32_at(file: &[u8], offset: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*file.get(offset..)?.first_chunk()?) as usize)
}

/// Offset of the `data` chunk of a WAV file, at its id and length.
fn data_chunk(file: &[u8]) -> Option<usize> {
    let mut offset = 12;
    while !file.get(offset..)?.starts_with(b"data") {
        offset = offset.checked_add(8 + u32_at(file, offset + 4)?.next_multiple_of(2))?;
    }
    Some(offset)
}

/// A RIFF length that ends before the file does, and a `data` length of 0 that is followed by samples, become unknown.
fn wav_patches(file: &[u8]) -> Vec<Patch> {
    let mut patches = vec![];
    if file.starts_with(RF64) {
        patches.push((0, b"RIFF".into()));
    }
    if u32_at(file, 4).is_some_and(|length| length + 8 < file.len()) {
        patches.push((4, UNKNOWN_LENGTH.into()));
    }
    if let Some(offset) =
        data_chunk(file).filter(|offset| u32_at(file, offset + 4) == Some(0) && offset + 8 < file.len())
    {
        patches.push((offset + 4, UNKNOWN_LENGTH.into()));
    }
    patches
}

/// A segment length beyond the end of the file becomes unknown: all value bits are ones.
fn matroska_patch(file: &[u8]) -> Option<Patch> {
    let id = |offset: usize| Some(u32::from_be_bytes(*file.get(offset..)?.first_chunk()?));
    // A variable-length integer: the leading zeros of the first byte are the number of bytes that follow it.
    let length = |offset: usize| {
        let width = file.get(offset)?.leading_zeros() as usize + 1;
        let bytes = file.get(offset..offset + width).filter(|_| width <= 8)?;
        let value = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        Some((width, value & ((1 << (7 * width)) - 1)))
    };
    let (width, value) = length(4).filter(|_| id(0) == Some(EBML))?;
    let segment = usize::try_from(value).ok()?.checked_add(4 + width)?;
    let (width, value) = length(segment.checked_add(4)?).filter(|_| id(segment) == Some(SEGMENT))?;
    let remaining = (file.len() - segment - 4 - width) as u64;
    let unknown = [&[0xff >> (width - 1)][..], &vec![0xff; width - 1]].concat();
    (value > remaining).then_some((segment + 4, unknown))
}

/// The size of the last box, if it is beyond the end of the file, becomes 0: "until the end of the file".
fn mp4_patch(file: &[u8]) -> Option<Patch> {
    let mut offset = 0;
    loop {
        let size = u32::from_be_bytes(*file.get(offset..)?.first_chunk()?);
        let size = match size {
            0 => return None,
            1 => u64::from_be_bytes(*file.get(offset + 8..)?.first_chunk()?),
            size => u64::from(size),
        };
        let remaining = (file.len() - offset) as u64;
        if size > remaining {
            return Some((offset, vec![0; 4]));
        }
        offset += usize::try_from(size.max(8)).ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: Vec<u8>) -> Vec<u8> {
        let (mut source, mut out) = (RepairedSource::new(file.into()), vec![]);
        // Shorter than some patches, which are then applied in two reads.
        let mut buffer = [0; 5];
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            out.extend_from_slice(&buffer[..count]);
        }
        out
    }

    #[test]
    fn wav_lengths_never_filled_in_become_unknown() {
        let wav = |riff: u32, data: u32| {
            let (riff, data) = (riff.to_le_bytes(), data.to_le_bytes());
            [&b"RIFF"[..], &riff, b"WAVEfmt ", &[2, 0, 0, 0], b"xx", b"data", &data, b"samples."].concat()
        };
        assert_eq!(read(wav(0, 0)), wav(u32::MAX, u32::MAX));
        assert_eq!(read(wav(30, 8)), wav(30, 8));
        assert_eq!(read(wav(30, 4)), wav(30, 4));
        assert_eq!(read(wav(10, 8)), wav(u32::MAX, 8));
    }

    #[test]
    fn lengths_beyond_end_of_file_become_unknown() {
        let segment =
            |size: [u8; 2]| [&EBML.to_be_bytes()[..], &[0x81, 0], &SEGMENT.to_be_bytes(), &size, b"cluster"].concat();
        assert_eq!(read(segment([0x40, 7])), segment([0x40, 7]));
        assert_eq!(read(segment([0x40, 8])), segment([0x7f, 0xff]));
        let boxes = |size: u32| [&[0, 0, 0, 12][..], b"ftypmp42", &size.to_be_bytes(), b"mdataudio"].concat();
        assert_eq!(read(boxes(13)), boxes(13));
        assert_eq!(read(boxes(14)), boxes(0));
    }

    #[test]
    fn truncated_headers_are_unchanged() {
        for header in [
            &b"RIFF\0\0\0\0WAVE"[..],
            b"RIFF\0\0\0\0WAVEdat",
            &EBML.to_be_bytes(),
            b"\x1a\x45\xdf\xa3\x01\xff",
            b"\0\0\0\x01ftypxxxx",
        ] {
            assert_eq!(read(header.to_vec()).len(), header.len());
        }
    }
}
