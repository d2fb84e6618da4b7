//! A recording as an iterator over blocks of samples.

use crate::decode::TrackDecoder;
use crate::error::{FIELD, invalid_file};
use crate::resample::Resampler;
use crate::sample_rate::SAMPLE_RATE;
use bytes::Bytes;
use tealight_core::{Error, ErrorKind, Result};
use tealight_kernels::Isa;

/// Maximum number of sample rate changes in a file: more are a sign of corruption, and each one creates a resampler. The first
/// sample rate is not a change.
const MAX_RATE_CHANGES: usize = 100;

/// An audio file: WAV, AIFF, MP3, MP2, AAC, FLAC, Ogg (Vorbis, Opus), MP4 and M4A (AAC, ALAC, Opus), Matroska (AAC, Vorbis,
/// Opus) or WebM (Vorbis, Opus).
#[derive(Debug, Clone)]
pub struct Recording {
    bytes: Bytes,
}

impl Recording {
    /// Detects the container and codec, without decoding.
    ///
    /// # Errors
    /// The file is empty, not a supported audio file, or has no audio track with a supported codec.
    pub fn open(bytes: Bytes) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Error::new(ErrorKind::Empty, "file is empty: 0 bytes").with_param(FIELD));
        }
        TrackDecoder::open(bytes.clone())?;
        Ok(Self { bytes })
    }

    /// Decodes the recording from its start: mono samples at [`SAMPLE_RATE`], the mean of all channels. Each call gives the same
    /// samples, regardless of `isa`, which only resampling uses.
    ///
    /// # Errors
    /// Like [`Recording::open`]. The iterator ends with an error if nothing can be decoded; corrupt parts are skipped.
    pub fn samples(&self, isa: Isa) -> Result<Samples> {
        Ok(Samples {
            isa,
            decoder: TrackDecoder::open(self.bytes.clone())?,
            resampler: None,
            rate: 0,
            rate_changes: 0,
            is_any_decoded: false,
            is_finished: false,
        })
    }
}

/// Iterator over consecutive blocks of samples, which may be empty.
#[derive(Debug)]
pub struct Samples {
    isa: Isa,
    decoder: TrackDecoder,
    /// `None` while the recording has the target sample rate.
    resampler: Option<Resampler>,
    /// Sample rate of the last decoded block; 0 before the first.
    rate: usize,
    rate_changes: usize,
    is_any_decoded: bool,
    is_finished: bool,
}

impl Samples {
    fn next_block(&mut self) -> Result<Option<Vec<f32>>> {
        if self.is_finished {
            return Ok(None);
        }
        let Some((rate, block)) = self.decoder.next_block()? else {
            self.is_finished = true;
            if !self.is_any_decoded {
                return Err(self.no_audio_error());
            }
            return Ok(self.resampler.take().map(Resampler::finish));
        };
        self.is_any_decoded = true;
        let mut out = if self.rate == rate { vec![] } else { self.change_rate(rate)? };
        match &mut self.resampler {
            None => out.extend(block),
            Some(resampler) => out.extend(resampler.push(&block)),
        }
        Ok(Some(out))
    }

    fn no_audio_error(&self) -> Error {
        let problem = "contains no audio that can be decoded";
        match self.decoder.unsupported_feature() {
            Some(feature) => invalid_file(format!("{problem}: {feature} is not supported")),
            None => invalid_file(problem),
        }
    }

    /// Starts a resampler for another sample rate, which chained Ogg streams may have. Returns the remaining samples of the
    /// previous one.
    fn change_rate(&mut self, rate: usize) -> Result<Vec<f32>> {
        let is_change = self.rate != 0;
        if is_change && self.rate_changes == MAX_RATE_CHANGES {
            return Err(invalid_file(format!("changes its sample rate more than {MAX_RATE_CHANGES} times")));
        }
        let remaining = self.resampler.take().map(Resampler::finish);
        self.resampler = (rate != SAMPLE_RATE).then(|| Resampler::new(self.isa, rate));
        (self.rate, self.rate_changes) = (rate, self.rate_changes + usize::from(is_change));
        Ok(remaining.unwrap_or_default())
    }
}

impl Iterator for Samples {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = self.next_block().transpose();
        self.is_finished |= matches!(block, Some(Err(_)));
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_rate_may_change_100_times() {
        let mut wav =
            b"RIFF\xa4\x3e\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\x80\x3e\0\0\x01\0\x08\0data\x80\x3e\0\0"
                .to_vec();
        wav.resize(wav.len() + SAMPLE_RATE, 128);
        let mut samples = Recording::open(wav.into()).unwrap().samples(Isa::Scalar).unwrap();
        let mut rates = [SAMPLE_RATE, SAMPLE_RATE / 2].into_iter().cycle();
        for rate in rates.by_ref().take(1 + MAX_RATE_CHANGES) {
            samples.change_rate(rate).unwrap();
        }
        let error = samples.change_rate(rates.next().unwrap()).unwrap_err();
        assert!(error.message.contains("more than 100 times"), "{error}");
    }
}
