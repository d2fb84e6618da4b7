//! AAC (ISO/IEC 14496-3) of every profile but xHE: LC, Main, LTP, HE with one or two channels made up, LD, up to 7.1 channels.

use super::invalid;
use rusty_aac::config::StreamConfig;
use rusty_aac::{AacDecoder, Error as Fault};
use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::errors::{Error as Failure, Result as Outcome};
use symphonia::core::packet::Packet;
use tealight_core::Result;

/// Low complexity, which a stream without a container is taken to be: what it has of HE says so itself.
const LC: u8 = 2;
/// The number of 7.1 in a stream's head; up to 6 it is that of the channels, and 0 says that the stream has a table.
const SEVEN_ONE: (usize, u8) = (8, 7);

pub(super) struct Aac(AacDecoder);

impl Aac {
    pub(super) fn new(parameters: &AudioCodecParameters) -> Result<Self> {
        let decoder = match parameters.extra_data.as_deref() {
            Some(config) => AacDecoder::with_config_bytes(config),
            None => {
                let channels = parameters.channels.as_ref().map_or(0, |c| c.count());
                let number = if channels == SEVEN_ONE.0 { SEVEN_ONE.1 } else { channels.min(6) as u8 };
                let rate = parameters.sample_rate.unwrap_or_default();
                Ok(AacDecoder::with_stream_config(StreamConfig::lc(LC, rate, number)))
            }
        };
        decoder.map(Self).map_err(|e| match e {
            Fault::Unsupported(what) => invalid(format!("is AAC of a form that is not decoded here ({what})")),
            e => invalid(format!("is AAC whose head makes no sense ({e})")),
        })
    }

    /// Decodes a packet to `out`; returns rate and channels.
    pub(super) fn decode(&mut self, packet: &Packet, out: &mut Vec<f32>) -> Outcome<(usize, usize)> {
        let decoded = self.0.decode(&packet.data, None).map_err(|e| match e {
            Fault::Unsupported(_) => Failure::Unsupported("AAC of a form that is not decoded here"),
            _ => Failure::DecodeError("aac: damaged packet"),
        })?;
        *out = decoded.samples;
        Ok((decoded.sample_rate as usize, decoded.channels.into()))
    }
}
