//! Recordings: from the bytes of a file to samples at 16 kHz in one channel, piece by piece.

mod aac;
mod decode;
pub mod log_mel;
mod mp4;
mod opus;
mod repair;
mod resample;
mod unsupported;
mod vad;

use bytes::Bytes;
use decode::Decoder;
use resample::Resampler;
use tealight_core::{Error, ErrorKind, Result};
pub use vad::VoiceDetector;
pub use vad::Voices;

/// Samples a second, of everything that is listened to.
pub const RATE: usize = 16_000;
/// Changes of the rate beyond these are damage; each plans a resampler anew.
const MOST_CHANGES: usize = 100;
/// The field that a recording comes in, for errors.
const FIELD: &str = "file";

/// A file that holds a recording: WAV, AIFF, MP3, AAC, FLAC, Ogg (Vorbis, Opus), MP4 and M4A (AAC, ALAC, Opus),
/// Matroska and WebM (Vorbis, Opus).
#[derive(Debug, Clone)]
pub struct Recording {
    bytes: Bytes,
}

impl Recording {
    /// Looks at the file, and finds its audio and a decoder for it.
    ///
    /// # Errors
    /// The file is empty, of an unknown kind, without audio, or in a codec that is not decoded here, which is named.
    pub fn open(bytes: Bytes) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Error::new(ErrorKind::Empty, "file has 0 bytes").with_param(FIELD));
        }
        Decoder::open(bytes.clone())?;
        Ok(Self { bytes })
    }

    /// The samples from the beginning, in pieces, at [`RATE`]; channels become their mean. May be called again.
    pub fn samples(&self) -> Result<Samples> {
        Ok(Samples {
            decoder: Decoder::open(self.bytes.clone())?,
            resampler: None,
            rate: 0,
            changes: 0,
            some: false,
            ended: false,
        })
    }
}

/// Pieces of samples, in order.
#[derive(Debug)]
pub struct Samples {
    decoder: Decoder,
    /// None where the recording has the right rate.
    resampler: Option<Resampler>,
    /// Of the recording, once it is known.
    rate: usize,
    changes: usize,
    /// Whether anything could be decoded.
    some: bool,
    ended: bool,
}

impl Samples {
    /// The next piece; `None` at the end.
    fn piece(&mut self) -> Result<Option<Vec<f32>>> {
        if self.ended {
            return Ok(None);
        }
        let Some((rate, piece)) = self.decoder.next_piece()? else {
            self.ended = true;
            if !self.some {
                return Err(self.nothing());
            }
            return self.resampler.take().map(Resampler::finish).transpose();
        };
        self.some = true;
        let mut out = if self.rate == rate { vec![] } else { self.change(rate)? };
        match &mut self.resampler {
            None => out.extend(piece),
            Some(resampler) => out.extend(resampler.push(&piece)?),
        }
        Ok(Some(out))
    }

    /// Why there was nothing to hear.
    fn nothing(&self) -> Error {
        let none = "holds no audio that can be decoded";
        invalid(self.decoder.lacks().map_or(none.into(), |what| format!("{none}: it needs {what}")))
    }

    /// Takes up another rate, as the streams of a chain may have, and returns what is left of the last one.
    fn change(&mut self, rate: usize) -> Result<Vec<f32>> {
        if self.changes == MOST_CHANGES {
            return Err(invalid(format!("changes its rate more than {MOST_CHANGES} times")));
        }
        let rest = self.resampler.take().map(Resampler::finish).transpose()?;
        self.resampler = if rate == RATE { None } else { Some(Resampler::new(rate)?) };
        (self.rate, self.changes) = (rate, self.changes + 1);
        Ok(rest.unwrap_or_default())
    }
}

impl Iterator for Samples {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.piece().transpose();
        self.ended |= matches!(piece, Some(Err(_)));
        piece
    }
}

/// An error about the recording.
fn invalid(what: impl std::fmt::Display) -> Error {
    Error::invalid_value(FIELD, format!("file {what}"))
}
