//! A file as a reader of its container gets it: where a recording broke off, or was written to a pipe, lengths in its head are not
//! those of the file, and Symphonia refuses them. Players go by what is there. What is in WAV by another name is named again.

use bytes::Bytes;
use std::io::{Cursor, Read, Result, Seek, SeekFrom};
use std::ops::Range;
use symphonia::core::io::MediaSource;

/// "Until the end", as WAV writes it.
const OPEN: [u8; 4] = [0xff; 4];
/// How a WAV file of more than 4 GB begins (EBU Tech 3306); its lengths are "until the end", and others in a chunk of their own.
const LONG: &[u8] = b"RF64";
/// Streams that need no container, and are put into WAV all the same: MP2, MP3, AAC.
const STREAMS: [u16; 3] = [0x50, 0x55, 0xff];
/// Ids of Matroska (RFC 9559): the head of the file, and what holds all else.
const EBML: u32 = 0x1a45_dfa3;
const SEGMENT: u32 = 0x1853_8067;

/// A file, and what stands in places of it instead of what is there.
pub(super) struct Mended {
    file: Cursor<Bytes>,
    patches: Vec<(usize, Vec<u8>)>,
    /// Matroska has the place of its index in its head, and that is gone where the file is cut.
    is_seekable: bool,
}

impl Mended {
    pub(super) fn new(file: Bytes) -> Self {
        let is_matroska = file.starts_with(&EBML.to_be_bytes());
        let patches = match file.get(..12) {
            _ if is_wave(&file) => wave(&file),
            _ if is_matroska => matroska(&file).into_iter().collect(),
            Some([_, _, _, _, b'f', b't', b'y', b'p', ..]) => mp4(&file).into_iter().collect(),
            _ => vec![],
        };
        let is_seekable = !is_matroska || patches.is_empty();
        Self { file: Cursor::new(file), patches, is_seekable }
    }
}

impl Read for Mended {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let start = self.file.position() as usize;
        let count = self.file.read(out)?;
        for (at, bytes) in &self.patches {
            let both: Range<usize> = start.max(*at)..(start + count).min(at + bytes.len());
            if !both.is_empty() {
                out[both.start - start..both.end - start].copy_from_slice(&bytes[both.start - at..both.end - at]);
            }
        }
        Ok(count)
    }
}

impl Seek for Mended {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.file.seek(to)
    }
}

impl MediaSource for Mended {
    fn is_seekable(&self) -> bool {
        self.is_seekable
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.file.get_ref().len() as u64)
    }
}

fn is_wave(file: &[u8]) -> bool {
    (file.starts_with(b"RIFF") || file.starts_with(LONG)) && file.get(8..12) == Some(b"WAVE")
}

/// What is in a WAV file around a stream that needs none, or else the file.
pub(super) fn unwrapped(file: Bytes) -> Bytes {
    let format = file.get(20..22).map(|two| u16::from_le_bytes([two[0], two[1]]));
    let is_stream = is_wave(&file) && file.get(12..16) == Some(b"fmt ") && format.is_some_and(|f| STREAMS.contains(&f));
    match data(&file).filter(|_| is_stream) {
        Some(at) => file.slice((at + 8).min(file.len())..),
        None => file,
    }
}

fn length(file: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?) as usize)
}

/// Where the samples of a WAV file begin, with their name and length.
fn data(file: &[u8]) -> Option<usize> {
    let mut at = 12;
    while !file.get(at..)?.starts_with(b"data") {
        at = at.checked_add(8 + length(file, at + 4)?.next_multiple_of(2))?;
    }
    Some(at)
}

/// Lengths of the whole and of the samples: one that ends before the file does is left open, and so is no length at all.
fn wave(file: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut patches = vec![];
    if file.starts_with(LONG) {
        patches.push((0, b"RIFF".into()));
    }
    if length(file, 4).is_some_and(|length| length + 8 < file.len()) {
        patches.push((4, OPEN.into()));
    }
    if let Some(at) = data(file).filter(|at| length(file, at + 4) == Some(0) && at + 8 < file.len()) {
        patches.push((at + 4, OPEN.into()));
    }
    patches
}

/// The length of the segment: one beyond the file becomes "unknown", all ones.
fn matroska(file: &[u8]) -> Option<(usize, Vec<u8>)> {
    let id = |at: usize| Some(u32::from_be_bytes(*file.get(at..)?.first_chunk()?));
    // The first byte's leading zeros say how many bytes follow.
    let length = |at: usize| {
        let width = file.get(at)?.leading_zeros() as usize + 1;
        let bytes = file.get(at..at + width).filter(|_| width <= 8)?;
        let value = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        Some((width, value & ((1 << (7 * width)) - 1)))
    };
    let (width, value) = length(4).filter(|_| id(0) == Some(EBML))?;
    let at = usize::try_from(value).ok()?.checked_add(4 + width)?;
    let (width, value) = length(at.checked_add(4)?).filter(|_| id(at) == Some(SEGMENT))?;
    let behind = (file.len() - at - 4 - width) as u64;
    let unknown = [&[0xff >> (width - 1)][..], &vec![0xff; width - 1]].concat();
    (value > behind).then_some((at + 4, unknown))
}

/// The size of the last box: one beyond the file becomes 0, "until the end".
fn mp4(file: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut at = 0;
    loop {
        let size = u32::from_be_bytes(*file.get(at..)?.first_chunk()?);
        let size = match size {
            0 => return None,
            1 => u64::from_be_bytes(*file.get(at + 8..)?.first_chunk()?),
            size => u64::from(size),
        };
        let left = (file.len() - at) as u64;
        if size > left {
            return Some((at, vec![0; 4]));
        }
        at += usize::try_from(size.max(8)).ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: Vec<u8>) -> Vec<u8> {
        let (mut mended, mut out) = (Mended::new(file.into()), vec![]);
        // In pieces that cut a patch in two.
        let mut piece = [0; 5];
        while let Ok(count @ 1..) = mended.read(&mut piece) {
            out.extend_from_slice(&piece[..count]);
        }
        out
    }

    #[test]
    fn lengths_that_a_writer_never_filled_in_are_left_open() {
        let wave = |whole: u32, data: u32| {
            let (whole, data) = (whole.to_le_bytes(), data.to_le_bytes());
            [&b"RIFF"[..], &whole, b"WAVEfmt ", &[2, 0, 0, 0], b"xx", b"data", &data, b"samples."].concat()
        };
        assert_eq!(read(wave(0, 0)), wave(u32::MAX, u32::MAX));
        assert_eq!(read(wave(30, 8)), wave(30, 8));
        assert_eq!(read(wave(30, 4)), wave(30, 4));
        assert_eq!(read(wave(10, 8)), wave(u32::MAX, 8));
    }

    #[test]
    fn what_is_cut_goes_to_the_end_of_the_file() {
        let segment =
            |size: [u8; 2]| [&EBML.to_be_bytes()[..], &[0x81, 0], &SEGMENT.to_be_bytes(), &size, b"cluster"].concat();
        assert_eq!(read(segment([0x40, 7])), segment([0x40, 7]));
        assert_eq!(read(segment([0x40, 8])), segment([0x7f, 0xff]));
        let boxes = |size: u32| [&[0, 0, 0, 12][..], b"ftypmp42", &size.to_be_bytes(), b"mdataudio"].concat();
        assert_eq!(read(boxes(13)), boxes(13));
        assert_eq!(read(boxes(14)), boxes(0));
    }

    #[test]
    fn heads_that_are_cut_are_left_as_they_are() {
        for head in [
            &b"RIFF\0\0\0\0WAVE"[..],
            b"RIFF\0\0\0\0WAVEdat",
            &EBML.to_be_bytes(),
            b"\x1a\x45\xdf\xa3\x01\xff",
            b"\0\0\0\x01ftypxxxx",
        ] {
            assert_eq!(read(head.to_vec()).len(), head.len());
        }
    }
}
