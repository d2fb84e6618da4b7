//! Opus (RFC 6716) in Ogg, WebM and MP4.

use crate::error::invalid_file;
use ruopus::{MultistreamDecoder, OpusDecoder};
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

/// A decoder and the output settings from the file.
pub(crate) struct Opus {
    decoder: Decoder,
    channels: usize,
    /// Factor for all samples.
    gain: f32,
    /// Encoder delay, in samples at 48 kHz.
    pub(crate) pre_skip: u64,
}

enum Decoder {
    SingleStream(Box<OpusDecoder>),
    MultiStream(MultistreamDecoder),
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
        let decoder = if head.get(head::FAMILY).is_some_and(|family| *family != 0) {
            multistream_decoder(head, channels)
                .ok_or_else(|| invalid_file("is Opus with an invalid channel mapping table"))?
        } else if (1..=2).contains(&channels) {
            Decoder::SingleStream(Box::new(OpusDecoder::new(channels)))
        } else {
            return Err(invalid_file(format!("is Opus with {channels} channels and no channel mapping table")));
        };
        let gain = 10f32.powf(u16_at(head::GAIN) as i16 as f32 / (20.0 * 256.0));
        Ok(Self { decoder, channels, gain, pre_skip: u16_at(head::PRE_SKIP).into() })
    }

    /// Decodes a packet to interleaved samples in `out`; returns the sample rate and the number of channels.
    pub(crate) fn decode(&mut self, packet: &Packet, out: &mut Vec<f32>) -> SymphoniaResult<(usize, usize)> {
        let decoded = match &mut self.decoder {
            Decoder::SingleStream(decoder) => decoder.decode_packet(&packet.data),
            Decoder::MultiStream(decoder) => decoder.decode_packet(&packet.data),
        };
        *out = decoded.map_err(|_| SymphoniaError::DecodeError("opus: corrupt packet"))?;
        // Ogg's granule position counts samples at 48 kHz and tells how many samples to trim from the last packet.
        let frames = (out.len() / self.channels).saturating_sub(packet.trim_end.get() as usize);
        out.truncate(frames * self.channels);
        if self.gain != 1.0 {
            out.iter_mut().for_each(|v| *v *= self.gain);
        }
        Ok((OPUS_RATE, self.channels))
    }
}

/// A decoder of several streams; `None` if the channel mapping table violates RFC 7845.
fn multistream_decoder(head: &[u8], channels: usize) -> Option<Decoder> {
    let (streams, coupled) = (*head.get(head::STREAMS)? as usize, *head.get(head::COUPLED)? as usize);
    let mapping = head.get(head::MAPPING..head::MAPPING + channels)?;
    let is_valid_count = channels > 0 && streams > 0 && coupled <= streams && streams + coupled <= 255;
    let is_valid_mapping = mapping.iter().all(|m| *m == 255 || (*m as usize) < streams + coupled);
    (is_valid_count && is_valid_mapping)
        .then(|| Decoder::MultiStream(MultistreamDecoder::with_rate(OPUS_RATE as u32, streams, coupled, mapping)))
}
