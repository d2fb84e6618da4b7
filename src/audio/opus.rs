//! Opus (RFC 6716) in Ogg and WebM, of one or two channels.

use super::invalid;
use crate::error::Result;
use ruopus::OpusDecoder;
use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::packet::Packet;

/// The rate of what is decoded.
const RATE: usize = 48_000;
/// Where `OpusHead` (RFC 7845) has the samples to pass over at the beginning, two bytes.
const PRE_SKIP: std::ops::Range<usize> = 10..12;

/// A decoder, and what is still to be passed over.
pub(super) struct Opus {
    decoder: OpusDecoder,
    channels: usize,
    skip: usize,
}

impl Opus {
    pub(super) fn new(parameters: &AudioCodecParameters) -> Result<Self> {
        let channels = parameters.channels.as_ref().map_or(1, |c| c.count());
        if !(1..=2).contains(&channels) {
            return Err(invalid(format!("is Opus of {channels} channels; 1 and 2 are decoded here")));
        }
        let head = parameters.extra_data.as_deref().and_then(|head| head.get(PRE_SKIP));
        let skip = head.map_or(0, |b| u16::from_le_bytes([b[0], b[1]]) as usize);
        Ok(Self { decoder: OpusDecoder::new(channels), channels, skip })
    }

    /// Rate and channels.
    pub(super) fn form(&self) -> (usize, usize) {
        (RATE, self.channels)
    }

    /// Decodes a packet; false where it is damaged.
    pub(super) fn decode(&mut self, packet: &Packet, out: &mut Vec<f32>) -> bool {
        let Ok(samples) = self.decoder.decode_packet(&packet.data) else { return false };
        *out = samples;
        let frames = out.len() / self.channels;
        // Ogg counts in samples of 48 kHz, and so says what the last packet has too many.
        let end = frames.saturating_sub(packet.trim_end.get() as usize);
        let skipped = self.skip.min(end);
        self.skip -= skipped;
        out.truncate(end * self.channels);
        out.drain(..skipped * self.channels);
        true
    }
}
