//! Containers and codecs, by Symphonia, and Opus.

use super::aac::Aac;
use super::opus::{self, Opus};
use super::repair::{self, Mended};
use super::{invalid, mp4, unsupported};
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use symphonia::core::codecs::audio::well_known::{CODEC_ID_AAC, CODEC_ID_FLAC, CODEC_ID_OPUS};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::{Error as Failure, Result as Outcome};
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use tealight_core::{Error, Result};

/// What an error says of files.
const READ: &str = "WAV, AIFF, MP3, AAC, FLAC, Ogg, MP4, M4A, Matroska and WebM are read";
/// Rates that recordings have.
const RATES: std::ops::RangeInclusive<usize> = 1_000..=384_000;
/// Channels beyond these are damage.
const MOST_CHANNELS: usize = 64;
/// Samples beyond these are damage: 60 dB over full scale.
const LOUDEST: f32 = 1000.0;
/// Damaged places in a row after which nothing more is expected.
const MOST_FAILURES: usize = 100;

/// One audio track of a file.
pub(super) struct Decoder {
    reader: Box<dyn FormatReader>,
    file: Bytes,
    track: Track,
    interleaved: Vec<f32>,
    failures: usize,
    lacks: Option<&'static str>,
}

/// What is being decoded; a chain of Ogg streams has one after the other.
struct Track {
    id: u32,
    codec: Codec,
    /// What the encoder put before the recording, in ticks, and how many are a second.
    delay: (u64, u64),
    begun: bool,
}

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Aac(Box<Aac>),
    Opus(Box<Opus>),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decoder of track {}", self.track.id)
    }
}

impl Decoder {
    pub(super) fn open(bytes: Bytes) -> Result<Self> {
        let file = repair::unwrapped(bytes.slice(tags(&bytes)..));
        // Some of these a reader takes for damaged MP3 or AAC.
        if let Some(name) = unsupported::file(&file) {
            return Err(invalid(format!("is {name}, which is not read here; {READ}")));
        }
        let stream = MediaSourceStream::new(Box::new(Mended::new(file.clone())), Default::default());
        let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
        let probed = guarded(|| symphonia::default::get_probe().probe(&Hint::new(), stream, format, meta));
        let reader = probed.map_err(|e| unknown(&e))?;
        let track = Track::find(&*reader, &file)?;
        Ok(Self { reader, file, track, interleaved: vec![], failures: 0, lacks: None })
    }

    /// The next samples and their rate, channels mixed; `None` at the end. What is damaged is passed over, as players do.
    pub(super) fn next_piece(&mut self) -> Result<Option<(usize, Vec<f32>)>> {
        while let Some(packet) = self.packet() {
            let Some((rate, channels)) = self.decode(&packet) else { continue };
            check(rate, channels)?;
            let delayed = self.track.pass_over(&packet, &*self.reader, rate, self.interleaved.len() / channels);
            let mean = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
            // What is no number would spread over everything that is heard with it, and so would the largest of floats.
            let sound = |v: f32| if v.is_nan() { 0.0 } else { v.clamp(-LOUDEST, LOUDEST) };
            let frames = self.interleaved.chunks_exact(channels).skip(delayed);
            let piece: Vec<f32> = frames.map(|f| sound(mean(f))).collect();
            if !piece.is_empty() {
                return Ok(Some((rate, piece)));
            }
        }
        Ok(None)
    }

    /// What the codec asks for that is not decoded here, if it did so.
    pub(super) fn lacks(&self) -> Option<&'static str> {
        self.lacks
    }

    /// The next packet of the track; `None` at the end, and where a file is cut: it has what it has.
    fn packet(&mut self) -> Option<Packet> {
        while self.failures < MOST_FAILURES {
            match guarded(|| self.reader.next_packet()) {
                Ok(Some(packet)) if packet.track_id == self.track.id => return Some(packet),
                Ok(Some(_)) => {}
                Ok(None) | Err(Failure::IoError(_)) => break,
                Err(Failure::ResetRequired) => {
                    self.failures += 1;
                    self.track = Track::find(&*self.reader, &self.file).ok()?;
                }
                Err(_) => self.failures += 1,
            }
        }
        None
    }

    /// Decodes to `interleaved`; returns rate and channels, or `None` where the packet is damaged.
    fn decode(&mut self, packet: &Packet) -> Option<(usize, usize)> {
        let (codec, out) = (&mut self.track.codec, &mut self.interleaved);
        match guarded(|| codec.decode(packet, out)) {
            Ok(form) => {
                self.failures = 0;
                return Some(form);
            }
            // Damage asks for what is not decoded, too, and then for one packet only.
            Err(Failure::Unsupported(what)) => self.lacks = Some(what),
            Err(_) => {}
        }
        None
    }
}

impl Codec {
    /// Decodes to `out`; returns rate and channels.
    fn decode(&mut self, packet: &Packet, out: &mut Vec<f32>) -> Outcome<(usize, usize)> {
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
    /// The track that a player would play.
    fn find(reader: &dyn FormatReader, file: &[u8]) -> Result<Self> {
        guarded(|| Ok(Self::of(reader, file))).map_err(|e| unknown(&e))?
    }

    fn of(reader: &dyn FormatReader, file: &[u8]) -> Result<Self> {
        let Some(track) = reader.default_track(TrackType::Audio) else {
            let unknown = reader.tracks().iter().any(|track| track.codec_params.is_none());
            return Err(invalid(if unknown {
                "has no audio track in a codec known here"
            } else {
                "has no audio track"
            }));
        };
        let parameters = track.codec_params.as_ref().and_then(|p| p.audio());
        let parameters = parameters.ok_or_else(|| invalid("has an audio track that says nothing of its codec"))?;
        let mp4 = container(reader) == "isomp4";
        let codec = codec(parameters, mp4)?;
        let edited = if mp4 { mp4::delay(file, track.id) } else { None };
        let skipped = match &codec {
            Codec::Opus(opus) => (opus.pre_skip, opus::RATE as u64),
            Codec::Aac(_) | Codec::Symphonia(_) => (0, 1),
        };
        Ok(Self { id: track.id, codec, delay: edited.unwrap_or(skipped), begun: false })
    }

    /// How many of the `frames` of a packet are to be passed over.
    fn pass_over(&mut self, packet: &Packet, reader: &dyn FormatReader, rate: usize, frames: usize) -> usize {
        // Matroska's times begin below zero by the delay. Elsewhere that is Symphonia's to see to. A first packet of
        // Vorbis has no samples, only what the second needs.
        if !self.begun && frames > 0 && !matches!(self.codec, Codec::Opus(_)) && container(reader) == "matroska" {
            let base = reader.tracks().iter().find(|track| track.id == self.id).and_then(|track| track.time_base);
            let (numerator, denominator) = base.map_or((0, 1), |base| (base.numer.get(), base.denom.get()));
            let early = packet.pts.get().min(0).unsigned_abs();
            self.delay = (early.saturating_mul(numerator.into()), denominator.into());
        }
        self.begun |= frames > 0;
        let (ticks, second) = self.delay;
        let left = (ticks as u128 * rate as u128 + second as u128 / 2) / second as u128;
        let passed = left.min(frames as u128);
        self.delay = (u64::try_from(left - passed).unwrap_or(u64::MAX), rate as u64);
        passed as usize
    }
}

/// The word for the container that is being read.
fn container(reader: &dyn FormatReader) -> &'static str {
    reader.format_info().short_name
}

fn codec(parameters: &AudioCodecParameters, mp4: bool) -> Result<Codec> {
    if parameters.codec == CODEC_ID_OPUS {
        return Ok(Codec::Opus(Box::new(Opus::new(parameters, mp4)?)));
    }
    if parameters.codec == CODEC_ID_AAC {
        return Ok(Codec::Aac(Box::new(Aac::new(parameters)?)));
    }
    // Symphonia takes the difference of two channels, which has 33 bits, for 32 bits, and decodes noise.
    if parameters.codec == CODEC_ID_FLAC && parameters.bits_per_sample.is_some_and(|bits| bits >= 32) {
        return Err(invalid("is FLAC of 32 bits, which is not decoded here; up to 24 are"));
    }
    let options = AudioDecoderOptions::default();
    let decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &options).map_err(|_| {
        invalid(format!("is in the codec {}, which is not decoded here", unsupported::codec(parameters.codec)))
    })?;
    Ok(Codec::Symphonia(decoder))
}

fn check(rate: usize, channels: usize) -> Result<()> {
    if !RATES.contains(&rate) {
        let (from, to) = (RATES.start(), RATES.end());
        return Err(invalid(format!("has {rate} samples a second; from {from} to {to} are read")));
    }
    if channels == 0 || channels > MOST_CHANNELS {
        return Err(invalid(format!("has {channels} channels; up to {MOST_CHANNELS} are read")));
    }
    Ok(())
}

fn unknown(why: &Failure) -> Error {
    invalid(format!("is no audio that is known here, or damaged ({why}); {READ}"))
}

/// Bytes of the tags (ID3v2) that a file begins with: pictures in them are longer than what a probe looks through.
fn tags(file: &[u8]) -> usize {
    let mut at = 0;
    while let Some([b'I', b'D', b'3', _, _, flags, size @ ..]) = file.get(at..at + 10) {
        let size = size.iter().fold(0, |size, byte| size << 7 | (byte & 0x7f) as usize);
        let footer = if flags & 0x10 != 0 { 10 } else { 0 };
        at += 10 + size + footer;
    }
    at.min(file.len())
}

/// A panic of a decoder on a damaged file is one more way to say that it is damaged.
fn guarded<T>(run: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Failure::DecodeError("a decoder gave up")))
}
