//! The result of a transcription.

/// A word with its timestamps.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// The text of the word, with the preceding space and adjacent punctuation.
    pub text: String,
    /// Start time in the recording, in seconds.
    pub start: f32,
    /// End time in the recording, in seconds.
    pub end: f32,
}

/// A part of the text with its timestamps.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Start of its window, in frames of 10 ms.
    pub seek: usize,
    /// Start time in the recording, in seconds.
    pub start: f32,
    /// End time in the recording, in seconds.
    pub end: f32,
    /// The text, with the space before the first word.
    pub text: String,
    /// Text and timestamp tokens.
    pub tokens: Vec<u32>,
    /// Temperature at which the window was decoded.
    pub temperature: f32,
    /// Mean natural log probability of the window's tokens.
    pub avg_logprob: f32,
    /// Length of the window's text divided by its length after zlib compression.
    pub compression_ratio: f32,
    /// Probability that the window contains no speech.
    pub no_speech_prob: f32,
    /// Empty unless word timestamps were requested.
    pub words: Vec<Word>,
}

/// Text of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// Code of the spoken language, such as `en`.
    pub language: String,
    /// Duration of the recording, in seconds.
    pub duration: f32,
    /// Segments in order of time.
    pub segments: Vec<Segment>,
}

impl Transcript {
    /// The text of all segments; starts with a space.
    pub fn text(&self) -> String {
        self.segments.iter().map(|s| s.text.as_str()).collect()
    }
}
