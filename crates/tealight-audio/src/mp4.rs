//! What an MP4 file says is to be passed over at the beginning of a track: its list of edits, which Symphonia reads
//! and does not apply. An encoder's delay stands there: 1024 samples, or 2112, which at 16 kHz are 0.13 s.

/// Ticks to pass over at the beginning of the track of this id, and how many are a second.
pub(super) fn delay(file: &[u8], id: u32) -> Option<(u64, u64)> {
    let mut tracks = inside(file, b"moov").flat_map(|moov| inside(moov, b"trak"));
    let trak = tracks.find(|trak| track_id(trak) == Some(id))?;
    let scale = inside(trak, b"mdia").flat_map(|mdia| inside(mdia, b"mdhd")).find_map(scale)?;
    let start = inside(trak, b"edts").flat_map(|edts| inside(edts, b"elst")).find_map(start)?;
    (scale > 0).then_some((start, scale))
}

/// The contents of the boxes of one kind.
fn inside<'a>(bytes: &'a [u8], kind: &'static [u8; 4]) -> impl Iterator<Item = &'a [u8]> {
    boxes(bytes).filter(move |(k, _)| *k == kind).map(|(_, contents)| contents)
}

/// Boxes in order: their kinds and contents. What is cut ends them.
fn boxes(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (size, kind) = (u32_at(rest, 0)?, rest.get(4..8)?);
        // 1: the size is in the next eight bytes; 0: all that is left.
        let (head, size) = match size {
            0 => (8, rest.len()),
            1 => (16, usize::try_from(u64_at(rest, 8)?).ok()?),
            size => (8, size as usize),
        };
        let end = size.min(rest.len());
        let contents = rest.get(head..end)?;
        rest = &rest[end..];
        Some((kind, contents))
    })
}

fn track_id(trak: &[u8]) -> Option<u32> {
    inside(trak, b"tkhd").find_map(|tkhd| u32_at(tkhd, if wide(tkhd) { 20 } else { 12 }))
}

/// Ticks in a second.
fn scale(mdhd: &[u8]) -> Option<u64> {
    u32_at(mdhd, if wide(mdhd) { 20 } else { 12 }).map(u64::from)
}

/// Where the first edit that shows anything begins; -1 marks one that does not.
fn start(elst: &[u8]) -> Option<u64> {
    let entries = elst.get(8..)?;
    if wide(elst) {
        return entries.chunks_exact(20).filter_map(|entry| u64_at(entry, 8)).find(|start| *start != u64::MAX);
    }
    let mut starts = entries.chunks_exact(12).filter_map(|entry| u32_at(entry, 4));
    starts.find(|start| *start != u32::MAX).map(u64::from)
}

/// Whether times in this box have eight bytes.
fn wide(contents: &[u8]) -> bool {
    contents.first() == Some(&1)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
