//! Log-mel windows of a recording, in bounded memory. The recording is decoded twice: first for its length, maximum log-mel value
//! and speech, then for the windows.

use crate::families::whisper::N_FRAMES;
use std::ops::Range;
use tealight_audio::log_mel::{HOP_LENGTH, N_FFT, SILENCE, Spectrogram, normalize};
use tealight_audio::{SAMPLE_RATE, VadOptions, VoiceDetector};
use tealight_core::{Error, Result};

/// Iterator over consecutive blocks of samples at [`SAMPLE_RATE`].
pub type SampleBlocks = Box<dyn Iterator<Item = Result<Vec<f32>>> + Send>;

/// Frames after the last complete one that still overlap the end of the recording.
const TRAILING_FRAMES: usize = N_FFT / 2 / HOP_LENGTH + 1;
/// A window whose maximum mel power, as a base-10 logarithm, is below this has no speech. openai/whisper has no such limit.
///
/// White noise of variance σ² has about 3.75 σ² in each mel bin (150, the sum of the squared window, times 1/40, the sum of a filter).
/// The limit is noise of -76 dB of full scale; rounding to 16 bits, with σ² = 2^-30 / 12, gives -9.5. That quiet speech is above the
/// limit was not measured.
const MIN_SPEECH_POWER: f32 = -7.0;
/// Consumed samples are removed from the buffer when there are at least this many.
const MIN_DRAIN: usize = 1 << 16;

/// Input of the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct MelWindow {
    /// `[N_FRAMES, n_mels]`; 0 after the frames that [`WindowReader::read_window`] was asked for.
    pub mel: Vec<f32>,
    /// Whether the window is too quiet for speech, and is skipped, because Whisper often hallucinates text in digital silence
    /// (`silence_and_noise_give_little_or_no_text` in tests/integration/whisper.rs).
    pub is_silent: bool,
}

/// Reads windows of a recording in order of time.
#[derive(Debug)]
pub struct WindowReader {
    frames: FrameReader,
    /// Samples of the recording.
    sample_count: usize,
    /// Maximum log-mel value of the recording.
    max: f32,
    /// Ranges of frames with speech; others are replaced by silence.
    speech: Vec<Range<usize>>,
    /// Log-mel frames from `buffer_start` on.
    buffer: Vec<f32>,
    buffer_start: usize,
}

impl WindowReader {
    /// Decodes the recording once. `decode` starts decoding and must give the same samples each time; `check` is called once per
    /// frame. With `vad`, frames without speech are replaced by silence.
    ///
    /// # Errors
    /// The recording cannot be decoded, or `check` failed.
    pub fn new(
        n_mels: usize,
        vad: Option<VadOptions>,
        decode: impl Fn() -> Result<SampleBlocks>,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let mut frames = FrameReader::new(n_mels, decode()?);
        frames.detector = vad.map(VoiceDetector::new);
        let (mut max, mut frame) = (SILENCE, vec![0.0; n_mels]);
        while frames.sample_count.is_none_or(|count| frames.next < count / HOP_LENGTH + TRAILING_FRAMES) {
            check()?;
            max = frames.read_frame(&mut frame)?.max(max);
        }
        let sample_count = frames.sample_count.unwrap_or(0);
        let frame_count = sample_count / HOP_LENGTH;
        let to_frames = |s: Range<usize>| s.start / HOP_LENGTH..s.end.div_ceil(HOP_LENGTH).min(frame_count);
        let speech = match frames.detector {
            Some(detector) => detector.finish().into_iter().map(to_frames).filter(|span| !span.is_empty()).collect(),
            None => std::iter::once(0..frame_count).collect(),
        };
        let frames = FrameReader::new(n_mels, decode()?);
        Ok(Self { frames, sample_count, max, speech, buffer: vec![], buffer_start: 0 })
    }

    /// Number of complete frames in the recording.
    pub fn frame_count(&self) -> usize {
        self.sample_count / HOP_LENGTH
    }

    /// Ranges of frames to transcribe, in order: the whole recording, or its speech. Speech that fits into one window is one range,
    /// because a window takes the same time regardless of its content.
    pub fn speech_ranges(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = vec![];
        for span in &self.speech {
            match ranges.last_mut() {
                Some(range) if span.end - range.start <= N_FRAMES => range.end = span.end,
                _ => ranges.push(span.clone()),
            }
        }
        ranges
    }

    /// Duration of the recording, in seconds.
    pub fn duration(&self) -> f32 {
        self.sample_count as f32 / SAMPLE_RATE as f32
    }

    /// At most `size` frames, starting at frame `seek`.
    ///
    /// # Errors
    /// The recording cannot be decoded, or `seek` is less than in an earlier call.
    pub fn read_window(&mut self, seek: usize, size: usize) -> Result<MelWindow> {
        let n_mels = self.frames.spectrogram.n_mels();
        if seek < self.buffer_start {
            return Err(Error::internal(format!("window at frame {seek} read after one at {}", self.buffer_start)));
        }
        let consumed = ((seek - self.buffer_start) * n_mels).min(self.buffer.len());
        self.buffer.drain(..consumed);
        self.buffer_start = seek;
        let mut frame = vec![0.0; n_mels];
        while self.frames.next < (seek + N_FRAMES).min(self.frame_count()) {
            let index = self.frames.next;
            self.frames.read_frame(&mut frame)?;
            if index >= seek {
                self.buffer.extend_from_slice(&frame);
            }
        }
        let mut mel = self.buffer.clone();
        mel.truncate(size.min(N_FRAMES) * n_mels);
        for (i, frame) in mel.chunks_exact_mut(n_mels).enumerate() {
            // The ranges are sorted, so only the first one that has not ended can contain the frame.
            let next = self.speech.partition_point(|span| span.end <= seek + i);
            if !self.speech.get(next).is_some_and(|span| span.contains(&(seek + i))) {
                frame.fill(SILENCE);
            }
        }
        let is_silent = mel.iter().all(|v| *v < MIN_SPEECH_POWER);
        normalize(&mut mel, self.max);
        mel.resize(N_FRAMES * n_mels, 0.0);
        Ok(MelWindow { mel, is_silent })
    }
}

/// Computes consecutive log-mel frames.
struct FrameReader {
    blocks: SampleBlocks,
    detector: Option<VoiceDetector>,
    spectrogram: Spectrogram,
    /// Samples from `samples_start` on.
    samples: Vec<f32>,
    samples_start: usize,
    /// Index of the next frame.
    next: usize,
    /// Total number of samples, once it is known.
    sample_count: Option<usize>,
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameReader at {}", self.next)
    }
}

impl FrameReader {
    fn new(n_mels: usize, blocks: SampleBlocks) -> Self {
        let spectrogram = Spectrogram::new(n_mels);
        Self { blocks, detector: None, spectrogram, samples: vec![], samples_start: 0, next: 0, sample_count: None }
    }

    /// Computes the next frame; returns its maximum.
    fn read_frame(&mut self, out: &mut [f32]) -> Result<f32> {
        // Frames are centered: the recording is mirrored before its start, and followed by silence.
        let center = self.next * HOP_LENGTH;
        self.read_samples(center + N_FFT / 2)?;
        self.next += 1;
        let start = center.checked_sub(N_FFT / 2 + self.samples_start);
        if let Some(samples) = start.and_then(|start| self.samples.get(start..start + N_FFT)) {
            return Ok(self.spectrogram.frame(samples, out));
        }
        let mut samples = [0.0; N_FFT];
        for (i, sample) in samples.iter_mut().enumerate() {
            let position = (center + i).abs_diff(N_FFT / 2);
            let index = position.checked_sub(self.samples_start);
            *sample = index.and_then(|index| self.samples.get(index)).copied().unwrap_or(0.0);
        }
        Ok(self.spectrogram.frame(&samples, out))
    }

    /// Decodes blocks until all samples before `end` are buffered, or the recording ends.
    fn read_samples(&mut self, end: usize) -> Result<()> {
        let consumed = (end.saturating_sub(N_FFT)).saturating_sub(self.samples_start);
        if consumed >= MIN_DRAIN {
            let consumed = consumed.min(self.samples.len());
            self.samples.drain(..consumed);
            self.samples_start += consumed;
        }
        while self.sample_count.is_none() && self.samples_start + self.samples.len() < end {
            match self.blocks.next() {
                Some(block) => {
                    let block = block?;
                    if let Some(detector) = &mut self.detector {
                        detector.push(&block);
                    }
                    self.samples.extend(block);
                }
                None => self.sample_count = Some(self.samples_start + self.samples.len()),
            }
        }
        Ok(())
    }
}
