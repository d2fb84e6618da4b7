//! Containers and codecs, by Symphonia, and Opus.

use super::invalid;
use super::opus::Opus;
use crate::error::Result;
use bytes::Bytes;
use std::io::Cursor;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_AC3, CODEC_ID_AC4, CODEC_ID_DCA, CODEC_ID_EAC3, CODEC_ID_MONKEYS_AUDIO, CODEC_ID_MP2,
    CODEC_ID_OPUS, CODEC_ID_SPEEX, CODEC_ID_WAVPACK, CODEC_ID_WMA,
};
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Failure;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

/// Rates that recordings have.
const RATES: std::ops::RangeInclusive<usize> = 1_000..=768_000;
/// Channels beyond these are damage.
const MOST_CHANNELS: usize = 64;
/// Codecs that files hold and nothing here decodes.
const OTHERS: [(AudioCodecId, &str); 10] = [
    (CODEC_ID_AAC, "AAC of another profile than LC"),
    (CODEC_ID_AC3, "AC-3"),
    (CODEC_ID_EAC3, "E-AC-3"),
    (CODEC_ID_AC4, "AC-4"),
    (CODEC_ID_DCA, "DTS"),
    (CODEC_ID_WMA, "WMA"),
    (CODEC_ID_SPEEX, "Speex"),
    (CODEC_ID_MP2, "MP2"),
    (CODEC_ID_WAVPACK, "WavPack"),
    (CODEC_ID_MONKEYS_AUDIO, "Monkey's Audio"),
];

/// One audio track of a file.
pub(super) struct Decoder {
    reader: Box<dyn FormatReader>,
    track: u32,
    codec: Codec,
    interleaved: Vec<f32>,
}

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<Opus>),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decoder of track {}", self.track)
    }
}

impl Decoder {
    pub(super) fn open(bytes: Bytes) -> Result<Self> {
        let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
        let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
        let reader = symphonia::default::get_probe().probe(&Hint::new(), stream, format, meta).map_err(|e| {
            invalid(format!(
                "is no audio that is known here ({e}); WAV, MP3, FLAC, Ogg, MP4, M4A, Matroska and WebM are read"
            ))
        })?;
        let track = reader.default_track(TrackType::Audio).ok_or_else(|| invalid("has no audio track"))?;
        let parameters = track.codec_params.as_ref().and_then(|p| p.audio());
        let parameters = parameters.ok_or_else(|| invalid("has an audio track that says nothing of its codec"))?;
        let (id, codec) = (track.id, codec(parameters)?);
        Ok(Self { track: id, codec, reader, interleaved: vec![] })
    }

    /// The next samples and their rate, channels mixed; `None` at the end. What is damaged is passed over, as players do.
    pub(super) fn next_piece(&mut self) -> Result<Option<(usize, Vec<f32>)>> {
        loop {
            let packet = match self.reader.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track => packet,
                Ok(Some(_)) => continue,
                // A file that is cut short has what it has.
                Ok(None) | Err(_) => return Ok(None),
            };
            let Some((rate, channels)) = self.decode(&packet)? else { continue };
            if !RATES.contains(&rate) {
                return Err(invalid(format!(
                    "has {rate} samples a second; from {} to {} are read",
                    RATES.start(),
                    RATES.end()
                )));
            }
            if channels == 0 || channels > MOST_CHANNELS {
                return Err(invalid(format!("has {channels} channels; up to {MOST_CHANNELS} are read")));
            }
            let mean = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
            // What is no number would spread over everything that is heard with it.
            let finite = |v: f32| if v.is_finite() { v } else { 0.0 };
            let piece: Vec<f32> = self.interleaved.chunks_exact(channels).map(|f| finite(mean(f))).collect();
            if !piece.is_empty() {
                return Ok(Some((rate, piece)));
            }
        }
    }

    /// Decodes to `interleaved`; returns rate and channels, or `None` where the packet is damaged.
    fn decode(&mut self, packet: &Packet) -> Result<Option<(usize, usize)>> {
        match &mut self.codec {
            Codec::Opus(opus) => Ok(opus.decode(packet, &mut self.interleaved).then(|| opus.form())),
            Codec::Symphonia(decoder) => match decoder.decode(packet) {
                Ok(audio) => {
                    audio.copy_to_vec_interleaved(&mut self.interleaved);
                    Ok(Some((audio.spec().rate() as usize, audio.num_planes())))
                }
                Err(Failure::Unsupported(what)) => Err(invalid(format!("needs what is not decoded here: {what}"))),
                Err(_) => Ok(None),
            },
        }
    }
}

fn codec(parameters: &AudioCodecParameters) -> Result<Codec> {
    if parameters.codec == CODEC_ID_OPUS {
        return Ok(Codec::Opus(Box::new(Opus::new(parameters)?)));
    }
    let options = AudioDecoderOptions::default();
    let decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &options).map_err(|e| {
        let known = OTHERS.iter().find(|(id, _)| *id == parameters.codec);
        let name = known.map_or_else(|| parameters.codec.to_string(), |(_, name)| name.to_string());
        invalid(format!("is in the codec {name}, which is not decoded here ({e})"))
    })?;
    Ok(Codec::Symphonia(decoder))
}
