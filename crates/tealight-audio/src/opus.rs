//! Opus (RFC 6716) in Ogg, WebM and MP4.

use crate::error::invalid_file;
use opus_pure::{MAX_PACKET_SAMPLES, OpusDecoder};
use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::errors::{Error as SymphoniaError, Result as SymphoniaResult};
use symphonia::core::packet::Packet;
use tealight_core::Result;

/// Sample rate of decoded Opus, in Hz.
pub(crate) const OPUS_RATE: usize = 48_000;

/// Offsets of the fields of `OpusHead` (RFC 7845, section 5.1).
mod head {
    pub const CHANNELS: usize = 9;
    /// Samples to skip at the start, u16.
    pub const PRE_SKIP: usize = 10;
    /// i16, in 1/256 dB.
    pub const GAIN: usize = 16;
    /// Channel mapping family. 0 is one stream of one or two channels; all others have a mapping table.
    pub const FAMILY: usize = 18;
    pub const STREAMS: usize = 19;
    pub const COUPLED: usize = 20;
    pub const MAPPING: usize = 21;
}

/// Entry of a channel mapping table for a silent channel.
const SILENT: u8 = 255;

/// The decoders of a file's streams. The crate's own multistream decoder only supports the default channel mappings of family 1.
pub(crate) struct Opus {
    /// Coupled streams come first.
    streams: Vec<Stream>,
    /// For each output channel, which decoded channel it is: those of the first stream, then those of the second. `None` is silence.
    mapping: Vec<Option<usize>>,
    /// Encoder delay, in samples at 48 kHz.
    pub(crate) pre_skip: u64,
}

/// An elementary stream. A coupled stream has two channels, other streams one.
struct Stream {
    decoder: OpusDecoder,
    channels: usize,
    /// Interleaved samples of the last packet, and room for the longest.
    samples: Vec<f32>,
}

impl Opus {
    /// `big_endian`: byte order of `OpusHead`, which MP4 stores in big-endian.
    pub(crate) fn new(parameters: &AudioCodecParameters, big_endian: bool) -> Result<Self> {
        let head = parameters.extra_data.as_deref().unwrap_or_default();
        let bytes_at = |offset: usize| -> [u8; 2] {
            head.get(offset..offset + 2).and_then(|b| b.try_into().ok()).unwrap_or_default()
        };
        let u16_at = |offset| {
            let bytes = bytes_at(offset);
            if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        };
        let container_channels = parameters.channels.as_ref().map_or(1, |c| c.count());
        let channels = head.get(head::CHANNELS).map_or(container_channels, |c| *c as usize);
        let table = if head.get(head::FAMILY).is_some_and(|family| *family != 0) {
            ChannelMapping::parse(head, channels)
                .ok_or_else(|| invalid_file("is Opus with an invalid channel mapping table"))?
        } else if (1..=2).contains(&channels) {
            ChannelMapping { streams: 1, coupled: channels - 1, mapping: (0..channels).map(Some).collect() }
        } else {
            return Err(invalid_file(format!("is Opus with {channels} channels and no channel mapping table")));
        };
        let gain = u16_at(head::GAIN) as i16;
        let stream = |index| Stream::new(if index < table.coupled { 2 } else { 1 }, gain);
        let streams = (0..table.streams).map(stream).collect::<Result<_>>()?;
        Ok(Self { streams, mapping: table.mapping, pre_skip: u16_at(head::PRE_SKIP).into() })
    }

    /// Decodes a packet to interleaved samples in `out`; returns the sample rate and the number of channels.
    pub(crate) fn decode(&mut self, packet: &Packet, out: &mut Vec<f32>) -> SymphoniaResult<(usize, usize)> {
        let frames = self.decode_streams(&packet.data).ok_or(SymphoniaError::DecodeError("opus: corrupt packet"))?;
        // Ogg's granule position counts samples at 48 kHz and tells how many samples to trim from the last packet.
        let frames = frames.saturating_sub(packet.trim_end.get() as usize);
        let channels = self.mapping.len();
        out.clear();
        out.resize(frames * channels, 0.0);
        let decoded: Vec<_> = self.streams.iter().flat_map(|s| (0..s.channels).map(move |c| (s, c))).collect();
        for (channel, source) in self.mapping.iter().enumerate() {
            let Some((stream, offset)) = source.and_then(|source| decoded.get(source)) else { continue };
            let samples = stream.samples.iter().skip(*offset).step_by(stream.channels);
            out.iter_mut().skip(channel).step_by(channels).zip(samples).for_each(|(out, sample)| *out = *sample);
        }
        Ok((OPUS_RATE, channels))
    }

    /// Decodes the packet of each stream; returns the number of samples per channel, or `None` if the packet is corrupt. All but the
    /// last have self-delimiting framing (RFC 7845, section 3).
    fn decode_streams(&mut self, mut data: &[u8]) -> Option<usize> {
        let (last, others) = self.streams.split_last_mut()?;
        let mut frames = None;
        for stream in others {
            let (packet, length) = remove_self_delimiting(data)?;
            data = &data[length..];
            let count = stream.decode(&packet)?;
            frames = frames.or(Some(count)).filter(|frames| *frames == count);
            frames?;
        }
        let count = last.decode(data)?;
        frames.is_none_or(|frames| frames == count).then_some(count)
    }
}

impl Stream {
    /// `gain` is in 1/256 dB.
    fn new(channels: usize, gain: i16) -> Result<Self> {
        let mut decoder = OpusDecoder::new(OPUS_RATE as i32, channels)
            .map_err(|e| invalid_file(format!("is Opus that cannot be decoded: {e}")))?;
        decoder.gain_q8 = gain.into();
        Ok(Self { decoder, channels, samples: vec![0.0; MAX_PACKET_SAMPLES * channels] })
    }

    /// Decodes a packet to `samples`; returns the number of samples per channel, or `None` if the packet is corrupt.
    fn decode(&mut self, packet: &[u8]) -> Option<usize> {
        // The decoder takes an empty packet for a lost one, and would conceal it.
        if packet.is_empty() {
            return None;
        }
        self.decoder.decode(packet, MAX_PACKET_SAMPLES, &mut self.samples).ok()
    }
}

/// Channel mapping table (RFC 7845, section 5.1.1).
struct ChannelMapping {
    streams: usize,
    /// The number of streams with two channels, which come first.
    coupled: usize,
    /// See [`Opus::mapping`].
    mapping: Vec<Option<usize>>,
}

impl ChannelMapping {
    /// `None` if the table violates RFC 7845.
    fn parse(head: &[u8], channels: usize) -> Option<Self> {
        let (streams, coupled) = (*head.get(head::STREAMS)? as usize, *head.get(head::COUPLED)? as usize);
        let mapping = head.get(head::MAPPING..head::MAPPING + channels)?;
        let is_valid_count = channels > 0 && streams > 0 && coupled <= streams && streams + coupled <= 255;
        let is_valid_mapping = mapping.iter().all(|m| *m == SILENT || (*m as usize) < streams + coupled);
        let mapping = mapping.iter().map(|m| (*m != SILENT).then_some(*m as usize)).collect();
        (is_valid_count && is_valid_mapping).then_some(Self { streams, coupled, mapping })
    }
}

/// Converts the first packet in `data` from self-delimiting framing (RFC 6716, appendix B) to the standard framing: removes the length of
/// its last frame, or of all frames if they are equally long. Returns it and its length in `data`; `None` if it is truncated.
fn remove_self_delimiting(data: &[u8]) -> Option<(Vec<u8>, usize)> {
    let toc = *data.first()?;
    let mut offset = 1;
    let mut packet = vec![toc];
    let mut payload_len = 0;
    // Codes of RFC 6716, section 3.2: one frame, two frames of equal length, two frames, any number of frames.
    match toc & 3 {
        0 => payload_len += frame_len(data, &mut offset)?,
        1 => payload_len += 2 * frame_len(data, &mut offset)?,
        2 => {
            payload_len += frame_len(data, &mut offset)?;
            packet.extend_from_slice(&data[1..offset]);
            payload_len += frame_len(data, &mut offset)?;
        }
        _ => {
            let frame_count_byte = *data.get(offset)?;
            offset += 1;
            // 255 means 254 bytes of padding, and that another count follows.
            let mut padding = if frame_count_byte & 0x40 != 0 { 255 } else { 0 };
            while padding == 255 {
                padding = *data.get(offset)?;
                offset += 1;
                payload_len += padding.min(254) as usize;
            }
            let frames = (frame_count_byte & 63) as usize;
            let is_vbr = frame_count_byte & 0x80 != 0;
            for _ in 1..if is_vbr { frames } else { 1 } {
                payload_len += frame_len(data, &mut offset)?;
            }
            packet.extend_from_slice(&data[1..offset]);
            payload_len += frame_len(data, &mut offset)? * if is_vbr { 1 } else { frames };
        }
    }
    packet.extend_from_slice(data.get(offset..offset + payload_len)?);
    Some((packet, offset + payload_len))
}

/// Reads the length of a frame (RFC 6716, section 3.2.1) and advances `offset` past it.
fn frame_len(data: &[u8], offset: &mut usize) -> Option<usize> {
    let first = *data.get(*offset)? as usize;
    *offset += 1;
    if first < 252 {
        return Some(first);
    }
    let second = *data.get(*offset)? as usize;
    *offset += 1;
    Some(4 * second + first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opus_pure::Repacketizer;
    use std::path::Path;
    use symphonia::core::formats::TrackType;
    use symphonia::core::formats::probe::Hint;
    use symphonia::core::io::MediaSourceStream;

    /// Codec parameters and packets of a file.
    fn packets(name: &str) -> (AudioCodecParameters, Vec<Packet>) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/audio").join(name);
        let file = std::io::Cursor::new(std::fs::read(path).unwrap());
        let stream = MediaSourceStream::new(Box::new(file), Default::default());
        let probe = symphonia::default::get_probe();
        let mut reader = probe.probe(&Hint::new(), stream, Default::default(), Default::default()).unwrap();
        let track = reader.default_track(TrackType::Audio).unwrap();
        let parameters = track.codec_params.as_ref().unwrap().audio().unwrap().clone();
        (parameters, std::iter::from_fn(|| reader.next_packet().ok().flatten()).collect())
    }

    /// Interleaved samples of all packets, and the number of channels.
    fn decode_all(parameters: &AudioCodecParameters, packets: &[Packet]) -> (Vec<f32>, usize) {
        let mut opus = Opus::new(parameters, false).unwrap();
        let (mut all, mut block) = (vec![], vec![]);
        for packet in packets {
            opus.decode(packet, &mut block).unwrap();
            all.extend_from_slice(&block);
        }
        (all, opus.mapping.len())
    }

    #[test]
    fn corrupt_packet_gives_samples_or_error_without_panic() {
        for name in ["speech.opus.ogg", "speech.opus.webm", "speech.opus.mp4", "speech.opus51.webm"] {
            let (parameters, packets) = packets(name);
            let mut opus = Opus::new(&parameters, name.ends_with("mp4")).unwrap();
            let (mut block, mut errors) = (vec![], 0);
            let mut decode = |data: Vec<u8>, packet: &Packet| {
                let mut corrupt = packet.clone();
                corrupt.data = data.into();
                match opus.decode(&corrupt, &mut block) {
                    Ok((_, channels)) => {
                        assert!(block.len() <= MAX_PACKET_SAMPLES * channels && block.iter().all(|v| v.is_finite()));
                    }
                    Err(_) => errors += 1,
                }
            };
            for (i, packet) in packets.iter().enumerate() {
                (0..packet.data.len()).for_each(|length| decode(packet.data[..length].to_vec(), packet));
                // All bits of the framing, and others of the payload in each packet.
                for bit in (0..8 * packet.data.len()).filter(|bit| *bit < 24 || bit % 13 == i % 13) {
                    let mut data = packet.data.to_vec();
                    data[bit / 8] ^= 1 << (bit % 8);
                    decode(data, packet);
                }
            }
            assert!(errors >= packets.len(), "{name}: an empty packet is an error");
        }
    }

    #[test]
    fn channel_mapping_table_permutes_and_silences_channels() {
        let (mut parameters, packets) = packets("speech.opus51.webm");
        let (intact, channels) = decode_all(&parameters, &packets);
        let mut head = parameters.extra_data.take().unwrap().to_vec();
        assert_eq!((channels, &head[head::FAMILY..head::MAPPING]), (6, &[1, 4, 2][..]));
        for family in [1, 2, 255] {
            head[head::FAMILY] = family;
            head[head::MAPPING..].copy_from_slice(&[5, SILENT, 0, 0, 2, 1]);
            parameters.extra_data = Some(head.clone().into());
            let (found, _) = decode_all(&parameters, &packets);
            // The table of the file is 0, 4, 1, 2, 3, 5: left, center, right, rear left, rear right, LFE.
            for (found, intact) in found.chunks_exact(channels).zip(intact.chunks_exact(channels)) {
                assert_eq!(found, [intact[5], 0.0, intact[0], intact[0], intact[3], intact[2]]);
            }
        }
        for (offset, invalid) in [(head::STREAMS, 0), (head::COUPLED, 5), (head::MAPPING, 6)] {
            let mut head = head.clone();
            head[offset] = invalid;
            assert!(ChannelMapping::parse(&head, channels).is_none(), "{invalid} at byte {offset}");
        }
        assert!(ChannelMapping::parse(&head[..head::MAPPING + 5], channels).is_none());
    }

    #[test]
    fn self_delimiting_framing_is_removed_for_all_frame_packings() {
        let toc = 19 << 3;
        for lengths in [&[0][..], &[251], &[1275], &[300, 300], &[1, 252], &[5, 5, 5], &[0, 251, 252, 600]] {
            let mut repacketizer = Repacketizer::new();
            for (i, length) in lengths.iter().enumerate() {
                repacketizer.cat(&[vec![toc], vec![i as u8; *length]].concat()).unwrap();
            }
            let delimited = repacketizer.out_self_delimited().unwrap();
            let followed = [&delimited[..], b"next stream"].concat();
            let expected = (repacketizer.out().unwrap(), delimited.len());
            assert_eq!(remove_self_delimiting(&followed), Some(expected), "{lengths:?}");
            for length in 0..delimited.len() {
                assert!(remove_self_delimiting(&delimited[..length]).is_none(), "{lengths:?}, {length} bytes");
            }
        }
        // One frame of 3 bytes with 2 and with 254 + 1 bytes of padding.
        for padding in [&[2][..], &[255, 1]] {
            let count: usize = padding.iter().map(|byte| usize::from(*byte).min(254)).sum();
            let header = [&[toc | 3, 0x41], padding].concat();
            let payload = [&[7; 3][..], &vec![0; count]].concat();
            let delimited = [&header[..], &[3], &payload].concat();
            let expected = ([header, payload].concat(), delimited.len());
            assert_eq!(remove_self_delimiting(&delimited), Some(expected));
        }
    }
}
