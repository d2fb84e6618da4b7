//! Opus (RFC 6716) in Ogg, WebM and MP4.

use super::invalid;
use ruopus::{MultistreamDecoder, OpusDecoder};
use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::errors::{Error as Failure, Result as Outcome};
use symphonia::core::packet::Packet;
use tealight_core::Result;

/// The rate of what is decoded.
pub(super) const RATE: usize = 48_000;

/// Where `OpusHead` (RFC 7845, section 5.1) has what.
mod head {
    pub const CHANNELS: usize = 9;
    /// Samples to pass over at the beginning, two bytes.
    pub const PRE_SKIP: usize = 10;
    /// In 1/256 dB, two bytes.
    pub const GAIN: usize = 16;
    /// 0 is one stream of one or two channels; all others have a table.
    pub const FAMILY: usize = 18;
    pub const STREAMS: usize = 19;
    pub const COUPLED: usize = 20;
    pub const MAPPING: usize = 21;
}

/// A decoder, and what the file says of its output.
pub(super) struct Opus {
    decoder: Decoder,
    channels: usize,
    gain: f32,
    /// Samples at 48 kHz that the encoder put before the recording.
    pub(super) pre_skip: u64,
}

enum Decoder {
    One(Box<OpusDecoder>),
    Many(MultistreamDecoder),
}

impl Opus {
    /// `big_endian`: MP4 turns the numbers of `OpusHead` around.
    pub(super) fn new(parameters: &AudioCodecParameters, big_endian: bool) -> Result<Self> {
        let head = parameters.extra_data.as_deref().unwrap_or_default();
        let two = |at: usize| -> [u8; 2] { head.get(at..at + 2).and_then(|b| b.try_into().ok()).unwrap_or_default() };
        let number = |at| if big_endian { u16::from_be_bytes(two(at)) } else { u16::from_le_bytes(two(at)) };
        let said = parameters.channels.as_ref().map_or(1, |c| c.count());
        let channels = head.get(head::CHANNELS).map_or(said, |c| *c as usize);
        let decoder = if head.get(head::FAMILY).is_some_and(|family| *family != 0) {
            many(head, channels).ok_or_else(|| invalid("is Opus with a table of channels that makes no sense"))?
        } else if (1..=2).contains(&channels) {
            Decoder::One(Box::new(OpusDecoder::new(channels)))
        } else {
            return Err(invalid(format!("is Opus of {channels} channels without a table of them")));
        };
        let gain = 10f32.powf(number(head::GAIN) as i16 as f32 / (20.0 * 256.0));
        Ok(Self { decoder, channels, gain, pre_skip: number(head::PRE_SKIP).into() })
    }

    /// Decodes a packet to `out`; returns rate and channels.
    pub(super) fn decode(&mut self, packet: &Packet, out: &mut Vec<f32>) -> Outcome<(usize, usize)> {
        let decoded = match &mut self.decoder {
            Decoder::One(decoder) => decoder.decode_packet(&packet.data),
            Decoder::Many(decoder) => decoder.decode_packet(&packet.data),
        };
        *out = decoded.map_err(|_| Failure::DecodeError("opus: damaged packet"))?;
        // Ogg counts in samples of 48 kHz, and so says what the last packet has too many.
        let frames = (out.len() / self.channels).saturating_sub(packet.trim_end.get() as usize);
        out.truncate(frames * self.channels);
        if self.gain != 1.0 {
            out.iter_mut().for_each(|v| *v *= self.gain);
        }
        Ok((RATE, self.channels))
    }
}

/// A decoder of several streams, if the table of channels keeps the rules that it relies on.
fn many(head: &[u8], channels: usize) -> Option<Decoder> {
    let (streams, coupled) = (*head.get(head::STREAMS)? as usize, *head.get(head::COUPLED)? as usize);
    let mapping = head.get(head::MAPPING..head::MAPPING + channels)?;
    let sound = channels > 0 && streams > 0 && coupled <= streams && streams + coupled <= 255;
    let known = mapping.iter().all(|m| *m == 255 || (*m as usize) < streams + coupled);
    (sound && known).then(|| Decoder::Many(MultistreamDecoder::with_rate(RATE as u32, streams, coupled, mapping)))
}
