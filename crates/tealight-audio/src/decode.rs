//! Decodes one audio track of a file: containers and most codecs with Symphonia, AAC and Opus with other crates.

use crate::aac::Aac;
use crate::error::invalid_file;
use crate::mp4::{self, EncoderDelay};
use crate::opus::{OPUS_RATE, Opus};
use crate::repair::{self, RepairedSource};
use crate::unsupported;
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use symphonia::core::codecs::audio::well_known::{CODEC_ID_AAC, CODEC_ID_FLAC, CODEC_ID_OPUS};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::{Error as SymphoniaError, Result as SymphoniaResult};
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use tealight_core::{Error, Result};

/// Container and file formats, for error messages.
const SUPPORTED_FORMATS: &str = "WAV, AIFF, MP3, MP2, AAC, FLAC, Ogg, MP4, M4A, Matroska or WebM";
/// Accepted sample rates, in Hz.
const SAMPLE_RATES: std::ops::RangeInclusive<usize> = 1_000..=384_000;
const MAX_CHANNELS: usize = 64;
/// Samples are clamped to this, 60 dB over full scale; larger values are a sign of corruption.
const MAX_AMPLITUDE: f32 = 1000.0;
/// Number of consecutive failures to read a packet after which decoding stops.
const MAX_FAILURES: usize = 100;

/// Decoder of one audio track of a file.
pub(crate) struct TrackDecoder {
    reader: Box<dyn FormatReader>,
    file: Bytes,
    track: Track,
    /// Interleaved samples of the last packet.
    interleaved: Vec<f32>,
    /// Failures to read a packet since the last packet that was decoded. Packets that cannot be decoded do not count.
    failures: usize,
    unsupported_feature: Option<&'static str>,
}

/// The track being decoded. A chained Ogg stream has several, one after the other.
struct Track {
    id: u32,
    codec: Codec,
    /// The part of the encoder delay that has not been skipped yet.
    delay: EncoderDelay,
    /// Whether a packet with samples has been decoded.
    is_started: bool,
}

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Aac(Box<Aac>),
    Opus(Box<Opus>),
}

impl std::fmt::Debug for TrackDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrackDecoder of track {}", self.track.id)
    }
}

impl TrackDecoder {
    pub(crate) fn open(bytes: Bytes) -> Result<Self> {
        let file = repair::unwrap_riff(bytes.slice(id3_len(&bytes)..));
        // Before probing, because Symphonia takes some of these files for corrupt MP3 or AAC.
        if let Some(name) = unsupported::file_format(&file) {
            return Err(invalid_file(format!("is {name}; expected {SUPPORTED_FORMATS}")));
        }
        let stream = MediaSourceStream::new(Box::new(RepairedSource::new(file.clone())), Default::default());
        let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
        let probed = catch_panic(|| symphonia::default::get_probe().probe(&Hint::new(), stream, format, meta));
        let reader = probed.map_err(|e| unreadable(&e))?;
        let track = Track::find(&*reader, &file)?;
        Ok(Self { reader, file, track, interleaved: vec![], failures: 0, unsupported_feature: None })
    }

    /// The next samples and their sample rate, with all channels mixed to one; `None` at the end. Corrupt packets are skipped, as
    /// players do.
    pub(crate) fn next_block(&mut self) -> Result<Option<(usize, Vec<f32>)>> {
        while let Some(packet) = self.next_packet() {
            let Some((rate, channels)) = self.decode(&packet) else { continue };
            validate(rate, channels)?;
            let skip = self.track.samples_to_skip(&packet, &*self.reader, rate, self.interleaved.len() / channels);
            let mean = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
            // NaN and huge values would spread to neighboring samples in the resampler and in spectrograms.
            let sanitize = |v: f32| if v.is_nan() { 0.0 } else { v.clamp(-MAX_AMPLITUDE, MAX_AMPLITUDE) };
            let frames = self.interleaved.chunks_exact(channels).skip(skip);
            let block: Vec<f32> = frames.map(|frame| sanitize(mean(frame))).collect();
            if !block.is_empty() {
                return Ok(Some((rate, block)));
            }
        }
        Ok(None)
    }

    /// The feature that the codec reported as unsupported, if any.
    pub(crate) fn unsupported_feature(&self) -> Option<&'static str> {
        self.unsupported_feature
    }

    /// The next packet of the track; `None` at the end, also of a truncated file.
    fn next_packet(&mut self) -> Option<Packet> {
        while self.failures < MAX_FAILURES {
            match catch_panic(|| self.reader.next_packet()) {
                Ok(Some(packet)) if packet.track_id == self.track.id => return Some(packet),
                Ok(Some(_)) => {}
                Ok(None) | Err(SymphoniaError::IoError(_)) => break,
                Err(SymphoniaError::ResetRequired) => {
                    self.failures += 1;
                    self.track = Track::find(&*self.reader, &self.file).ok()?;
                }
                Err(_) => self.failures += 1,
            }
        }
        None
    }

    /// Decodes to `interleaved`; returns the sample rate and the number of channels, or `None` if the packet is corrupt.
    fn decode(&mut self, packet: &Packet) -> Option<(usize, usize)> {
        let (codec, out) = (&mut self.track.codec, &mut self.interleaved);
        match catch_panic(|| codec.decode(packet, out)) {
            Ok(rate_and_channels) => {
                self.failures = 0;
                return Some(rate_and_channels);
            }
            // A corrupt packet may seem to need an unsupported feature; later packets can still be decoded.
            Err(SymphoniaError::Unsupported(feature)) => self.unsupported_feature = Some(feature),
            Err(_) => {}
        }
        None
    }
}

impl Codec {
    fn new(parameters: &AudioCodecParameters, is_mp4: bool) -> Result<Self> {
        if parameters.codec == CODEC_ID_OPUS {
            return Ok(Codec::Opus(Box::new(Opus::new(parameters, is_mp4)?)));
        }
        if parameters.codec == CODEC_ID_AAC {
            return Ok(Codec::Aac(Box::new(Aac::new(parameters)?)));
        }
        // In 32-bit stereo FLAC the difference of the channels has 33 bits. Symphonia overflows there and decodes noise.
        if parameters.codec == CODEC_ID_FLAC && parameters.bits_per_sample.is_some_and(|bits| bits >= 32) {
            return Err(invalid_file("is FLAC with 32 bits per sample; at most 24 are supported"));
        }
        let options = AudioDecoderOptions::default();
        let decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &options).map_err(|_| {
            let name = unsupported::codec_name(parameters.codec);
            invalid_file(format!("has audio in the codec {name}, which is not supported"))
        })?;
        Ok(Codec::Symphonia(decoder))
    }

    /// Decodes to interleaved samples in `out`; returns the sample rate and the number of channels.
    fn decode(&mut self, packet: &Packet, out: &mut Vec<f32>) -> SymphoniaResult<(usize, usize)> {
        match self {
            Codec::Aac(aac) => aac.decode(packet, out),
            Codec::Opus(opus) => opus.decode(packet, out),
            Codec::Symphonia(decoder) => {
                let audio = decoder.decode(packet)?;
                audio.copy_to_vec_interleaved(out);
                Ok((audio.spec().rate() as usize, audio.num_planes()))
            }
        }
    }
}

impl Track {
    /// The default audio track, which a player would play.
    fn find(reader: &dyn FormatReader, file: &[u8]) -> Result<Self> {
        catch_panic(|| Ok(Self::new(reader, file))).map_err(|e| unreadable(&e))?
    }

    fn new(reader: &dyn FormatReader, file: &[u8]) -> Result<Self> {
        let Some(track) = reader.default_track(TrackType::Audio) else {
            let is_unknown = reader.tracks().iter().any(|track| track.codec_params.is_none());
            return Err(invalid_file(if is_unknown {
                "has no audio track with a supported codec"
            } else {
                "has no audio track"
            }));
        };
        let parameters = track.codec_params.as_ref().and_then(|p| p.audio());
        let parameters = parameters.ok_or_else(|| invalid_file("has an audio track without codec parameters"))?;
        let is_mp4 = container_name(reader) == "isomp4";
        let codec = Codec::new(parameters, is_mp4)?;
        let edit_list_delay = if is_mp4 { mp4::encoder_delay(file, track.id) } else { None };
        let codec_delay = match &codec {
            Codec::Opus(opus) => EncoderDelay { ticks: opus.pre_skip, ticks_per_second: OPUS_RATE as u64 },
            Codec::Aac(_) | Codec::Symphonia(_) => EncoderDelay { ticks: 0, ticks_per_second: 1 },
        };
        Ok(Self { id: track.id, codec, delay: edit_list_delay.unwrap_or(codec_delay), is_started: false })
    }

    /// How many of the `frames` samples per channel of a packet are encoder delay.
    fn samples_to_skip(&mut self, packet: &Packet, reader: &dyn FormatReader, rate: usize, frames: usize) -> usize {
        // In Matroska, timestamps start below zero by the delay; for other containers Symphonia handles it. The first
        // Vorbis packet has no samples, because it only primes the second.
        let is_first = !self.is_started && frames > 0;
        if is_first && !matches!(self.codec, Codec::Opus(_)) && container_name(reader) == "matroska" {
            let base = reader.tracks().iter().find(|track| track.id == self.id).and_then(|track| track.time_base);
            let (numerator, denominator) = base.map_or((0, 1), |base| (base.numer.get(), base.denom.get()));
            let ticks_before_zero = packet.pts.get().min(0).unsigned_abs();
            self.delay = EncoderDelay {
                ticks: ticks_before_zero.saturating_mul(numerator.into()),
                ticks_per_second: denominator.into(),
            };
        }
        self.is_started |= frames > 0;
        let EncoderDelay { ticks, ticks_per_second } = self.delay;
        let remaining = (ticks as u128 * rate as u128 + ticks_per_second as u128 / 2) / ticks_per_second as u128;
        let skip = remaining.min(frames as u128);
        let ticks = u64::try_from(remaining - skip).unwrap_or(u64::MAX);
        self.delay = EncoderDelay { ticks, ticks_per_second: rate as u64 };
        skip as usize
    }
}

/// Symphonia's name of the container.
fn container_name(reader: &dyn FormatReader) -> &'static str {
    reader.format_info().short_name
}

fn validate(rate: usize, channels: usize) -> Result<()> {
    if !SAMPLE_RATES.contains(&rate) {
        let (min, max) = (SAMPLE_RATES.start(), SAMPLE_RATES.end());
        return Err(invalid_file(format!("has a sample rate of {rate} Hz; expected {min} to {max} Hz")));
    }
    if channels == 0 || channels > MAX_CHANNELS {
        return Err(invalid_file(format!("has {channels} channels; expected 1 to {MAX_CHANNELS}")));
    }
    Ok(())
}

fn unreadable(reason: &SymphoniaError) -> Error {
    invalid_file(format!("is not a supported audio file, or is corrupt ({reason}); expected {SUPPORTED_FORMATS}"))
}

/// Length of the ID3v2 tags at the start of a file. They are skipped because pictures in them can be longer than what Symphonia's
/// probe searches.
fn id3_len(file: &[u8]) -> usize {
    let mut offset = 0;
    while let Some([b'I', b'D', b'3', _, _, flags, size @ ..]) = file.get(offset..offset + 10) {
        let size = size.iter().fold(0, |size, byte| size << 7 | (byte & 0x7f) as usize);
        let footer = if flags & 0x10 != 0 { 10 } else { 0 };
        offset += 10 + size + footer;
    }
    offset.min(file.len())
}

/// Converts a panic of a decoder, which a corrupt file may cause, to an error.
fn catch_panic<T>(decode: impl FnOnce() -> SymphoniaResult<T>) -> SymphoniaResult<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or(Err(SymphoniaError::DecodeError("the decoder panicked")))
}
