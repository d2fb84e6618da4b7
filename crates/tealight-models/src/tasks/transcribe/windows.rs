//! Windows of a recording as the network reads them, in bounded memory: the recording is gone through once for how loud and
//! long it is, and once more for the windows.

use crate::families::whisper::FRAMES;
use std::ops::Range;
use tealight_audio::log_mel::{HOP_LENGTH, N_FFT, SILENCE, Spectrogram, normalize};
use tealight_audio::{SAMPLE_RATE, VadOptions, VoiceDetector};
use tealight_core::{Error, Result};

/// Pieces of samples at [`SAMPLE_RATE`], in order.
pub type Pieces = Box<dyn Iterator<Item = Result<Vec<f32>>> + Send>;

/// Frames behind the last whole one, which the end of the recording still reaches.
const BEHIND: usize = N_FFT / 2 / HOP_LENGTH + 1;
/// The loudest mel power of a window with a voice is above this, as a logarithm to the base 10: the noise of the last bit
/// of 16 is below, a whisper far away above.
const QUIETEST: f32 = -7.0;
/// Samples that are no longer needed are dropped in pieces of so many.
const DROPPED: usize = 1 << 16;

/// What the network reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// `[FRAMES, bands]`, with zeros behind the end.
    pub frames: Vec<f32>,
    /// Whether it is too quiet for any voice: openai/whisper writes words for digital silence, of which it has never heard any.
    pub is_silent: bool,
}

/// A recording that is listened to from the beginning to the end.
#[derive(Debug)]
pub struct Listener {
    frames: Frames,
    /// Samples of the recording.
    length: usize,
    loudest: f32,
    /// Frames to listen to; others are taken for silence.
    voices: Vec<Range<usize>>,
    /// Logarithms of the frames from `first` on.
    ready: Vec<f32>,
    first: usize,
}

impl Listener {
    /// For a model of so many mel bands; `again` gives the same pieces each time, and `check` is called over and over while they
    /// are gone through. With `voices` what is none of them is passed over.
    ///
    /// # Errors
    /// The recording cannot be read, or `check` gives up.
    pub fn new(
        bands: usize,
        voices: Option<VadOptions>,
        again: impl Fn() -> Result<Pieces>,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let mut frames = Frames::new(bands, again()?);
        frames.voices = voices.map(VoiceDetector::new);
        let (mut loudest, mut frame) = (SILENCE, vec![0.0; bands]);
        while frames.ended.is_none_or(|length| frames.next < length / HOP_LENGTH + BEHIND) {
            check()?;
            loudest = frames.next(&mut frame)?.max(loudest);
        }
        let length = frames.ended.unwrap_or(0);
        let whole = length / HOP_LENGTH;
        let in_frames = |s: Range<usize>| s.start / HOP_LENGTH..s.end.div_ceil(HOP_LENGTH).min(whole);
        let voices = match frames.voices {
            Some(voices) => voices.finish().into_iter().map(in_frames).filter(|span| !span.is_empty()).collect(),
            None => std::iter::once(0..whole).collect(),
        };
        Ok(Self { frames: Frames::new(bands, again()?), length, loudest, voices, ready: vec![], first: 0 })
    }

    /// Whole frames of the recording.
    pub fn frames(&self) -> usize {
        self.length / HOP_LENGTH
    }

    /// Parts of the recording that are worth listening to, in frames and in order. Voices that fit into one window are one part,
    /// since a window takes the same time whatever is in it.
    pub fn parts(&self) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = vec![];
        for voice in &self.voices {
            match parts.last_mut() {
                Some(part) if voice.end - part.start <= FRAMES => part.end = voice.end,
                _ => parts.push(voice.clone()),
            }
        }
        parts
    }

    /// Seconds of the recording.
    pub fn seconds(&self) -> f32 {
        self.length as f32 / SAMPLE_RATE as f32
    }

    /// The frames from `seek` on, no more than `size` of them.
    ///
    /// # Errors
    /// The recording cannot be read, or `seek` lies before that of an earlier window.
    pub fn window(&mut self, seek: usize, size: usize) -> Result<Window> {
        let bands = self.frames.spectrogram.n_mels();
        if seek < self.first {
            return Err(Error::internal(format!("a window at {seek} after one at {}", self.first)));
        }
        let over = ((seek - self.first) * bands).min(self.ready.len());
        self.ready.drain(..over);
        self.first = seek;
        let mut frame = vec![0.0; bands];
        while self.frames.next < (seek + FRAMES).min(self.frames()) {
            let number = self.frames.next;
            self.frames.next(&mut frame)?;
            if number >= seek {
                self.ready.extend_from_slice(&frame);
            }
        }
        let mut frames = self.ready.clone();
        frames.truncate(size.min(FRAMES) * bands);
        for (i, frame) in frames.chunks_exact_mut(bands).enumerate() {
            // In order, so that only the first that is not over yet can be one.
            let next = self.voices.partition_point(|voice| voice.end <= seek + i);
            if !self.voices.get(next).is_some_and(|voice| voice.contains(&(seek + i))) {
                frame.fill(SILENCE);
            }
        }
        let is_silent = frames.iter().all(|v| *v < QUIETEST);
        normalize(&mut frames, self.loudest);
        frames.resize(FRAMES * bands, 0.0);
        Ok(Window { frames, is_silent })
    }
}

/// Frames of pieces of samples, one after another.
struct Frames {
    pieces: Pieces,
    voices: Option<VoiceDetector>,
    spectrogram: Spectrogram,
    /// Samples from `begin` on.
    samples: Vec<f32>,
    begin: usize,
    /// The number of the frame that comes next.
    next: usize,
    /// How many samples there are, once that is known.
    ended: Option<usize>,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frames at {}", self.next)
    }
}

impl Frames {
    fn new(bands: usize, pieces: Pieces) -> Self {
        let spectrogram = Spectrogram::new(bands);
        Self { pieces, voices: None, spectrogram, samples: vec![], begin: 0, next: 0, ended: None }
    }

    /// Puts the next frame to `out`; returns its loudest band.
    fn next(&mut self, out: &mut [f32]) -> Result<f32> {
        // Frames are centred; before the recording stands its mirror image, behind it silence.
        let centre = self.next * HOP_LENGTH;
        self.read(centre + N_FFT / 2)?;
        self.next += 1;
        let start = centre.checked_sub(N_FFT / 2 + self.begin);
        if let Some(window) = start.and_then(|start| self.samples.get(start..start + N_FFT)) {
            return Ok(self.spectrogram.frame(window, out));
        }
        let mut window = [0.0; N_FFT];
        for (i, sample) in window.iter_mut().enumerate() {
            let place = (centre + i).abs_diff(N_FFT / 2);
            *sample = place.checked_sub(self.begin).and_then(|at| self.samples.get(at)).copied().unwrap_or(0.0);
        }
        Ok(self.spectrogram.frame(&window, out))
    }

    /// Reads pieces until there are the samples before `end`, or no more.
    fn read(&mut self, end: usize) -> Result<()> {
        let over = (end.saturating_sub(N_FFT)).saturating_sub(self.begin);
        if over >= DROPPED {
            let over = over.min(self.samples.len());
            self.samples.drain(..over);
            self.begin += over;
        }
        while self.ended.is_none() && self.begin + self.samples.len() < end {
            match self.pieces.next() {
                Some(piece) => {
                    let piece = piece?;
                    if let Some(voices) = &mut self.voices {
                        voices.push(&piece);
                    }
                    self.samples.extend(piece);
                }
                None => self.ended = Some(self.begin + self.samples.len()),
            }
        }
        Ok(())
    }
}
