//! AAC (ISO/IEC 14496-3): the profiles LC, Main, LTP, HE-AAC v1 and v2, and LD (not xHE-AAC), with up to 7.1 channels.

use crate::error::invalid_file;
use rusty_aac::config::StreamConfig;
use rusty_aac::{AacDecoder, Error as AacError};
use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::errors::{Error as SymphoniaError, Result as SymphoniaResult};
use symphonia::core::packet::Packet;
use tealight_core::Result;

/// Audio object type of AAC-LC, assumed for streams without a container. HE-AAC streams signal their extension themselves.
const AAC_LC: u8 = 2;
/// Channel configurations 1 to 6 equal the number of channels; 7 means 7.1, and 0 that the stream has its own table.
const CHANNELS_7_1: usize = 8;
const CONFIGURATION_7_1: u8 = 7;

pub(crate) struct Aac(AacDecoder);

impl Aac {
    pub(crate) fn new(parameters: &AudioCodecParameters) -> Result<Self> {
        let decoder = match parameters.extra_data.as_deref() {
            Some(config) => AacDecoder::with_config_bytes(config),
            None => {
                let channels = parameters.channels.as_ref().map_or(0, |c| c.count());
                let configuration = if channels == CHANNELS_7_1 { CONFIGURATION_7_1 } else { channels.min(6) as u8 };
                let rate = parameters.sample_rate.unwrap_or_default();
                Ok(AacDecoder::with_stream_config(StreamConfig::lc(AAC_LC, rate, configuration)))
            }
        };
        decoder.map(Self).map_err(|e| match e {
            AacError::Unsupported(feature) => invalid_file(format!("is AAC with an unsupported feature ({feature})")),
            e => invalid_file(format!("is AAC with an invalid configuration ({e})")),
        })
    }

    /// Decodes a packet to interleaved samples in `out`; returns the sample rate and the number of channels.
    pub(crate) fn decode(&mut self, packet: &Packet, out: &mut Vec<f32>) -> SymphoniaResult<(usize, usize)> {
        let decoded = self.0.decode(&packet.data, None).map_err(|e| match e {
            AacError::Unsupported(_) => SymphoniaError::Unsupported("a feature of this AAC stream"),
            _ => SymphoniaError::DecodeError("aac: corrupt packet"),
        })?;
        *out = decoded.samples;
        Ok((decoded.sample_rate as usize, decoded.channels.into()))
    }
}
