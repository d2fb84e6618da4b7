//! Edit lists of MP4 files, which Symphonia parses but does not apply. The first edit skips the encoder delay: 1024 or 2112
//! samples of the track (0.13 s for 2112 samples at 16 kHz).

/// Time to skip at the start of a track, because the encoder put silence there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncoderDelay {
    pub ticks: u64,
    pub ticks_per_second: u64,
}

/// The encoder delay of the track with this id. `None` if the file has no edit list.
pub(crate) fn encoder_delay(file: &[u8], id: u32) -> Option<EncoderDelay> {
    let mut tracks = find_boxes(file, b"moov").flat_map(|moov| find_boxes(moov, b"trak"));
    let trak = tracks.find(|trak| track_id(trak) == Some(id))?;
    let timescale = find_boxes(trak, b"mdia").flat_map(|mdia| find_boxes(mdia, b"mdhd")).find_map(timescale)?;
    let start = find_boxes(trak, b"edts").flat_map(|edts| find_boxes(edts, b"elst")).find_map(first_media_time)?;
    (timescale > 0).then_some(EncoderDelay { ticks: start, ticks_per_second: timescale })
}

/// Contents of the boxes of type `kind`.
fn find_boxes<'a>(bytes: &'a [u8], kind: &'static [u8; 4]) -> impl Iterator<Item = &'a [u8]> {
    boxes(bytes).filter(move |(k, _)| *k == kind).map(|(_, contents)| contents)
}

/// Types and contents of consecutive boxes; ends at a box with an invalid size.
fn boxes(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (size, kind) = (u32_at(rest, 0)?, rest.get(4..8)?);
        // 0: the box extends to the end of the file. 1: a 64-bit size follows.
        let (header_len, size) = match size {
            0 => (8, rest.len()),
            1 => (16, usize::try_from(u64_at(rest, 8)?).ok()?),
            size => (8, size as usize),
        };
        let end = size.min(rest.len());
        let contents = rest.get(header_len..end)?;
        rest = &rest[end..];
        Some((kind, contents))
    })
}

fn track_id(trak: &[u8]) -> Option<u32> {
    find_boxes(trak, b"tkhd").find_map(|tkhd| u32_at(tkhd, if has_64_bit_times(tkhd) { 20 } else { 12 }))
}

/// Ticks per second.
fn timescale(mdhd: &[u8]) -> Option<u64> {
    u32_at(mdhd, if has_64_bit_times(mdhd) { 20 } else { 12 }).map(u64::from)
}

/// Start of the first edit that is not empty; -1 marks empty edits.
fn first_media_time(elst: &[u8]) -> Option<u64> {
    let entries = elst.get(8..)?;
    if has_64_bit_times(elst) {
        return entries.chunks_exact(20).filter_map(|entry| u64_at(entry, 8)).find(|time| *time != u64::MAX);
    }
    let mut times = entries.chunks_exact(12).filter_map(|entry| u32_at(entry, 4));
    times.find(|time| *time != u32::MAX).map(u64::from)
}

/// Whether a full box has version 1, in which times have 64 bits.
fn has_64_bit_times(contents: &[u8]) -> bool {
    contents.first() == Some(&1)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}
