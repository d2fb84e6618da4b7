//! Options of a transcription.

use tealight_audio::VadOptions;

/// What to write: the spoken words, or their translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// Text in the spoken language.
    #[default]
    Transcribe,
    /// Text in English, regardless of the spoken language.
    Translate,
}

/// How to transcribe a recording, by the names of openai/whisper's command line.
#[derive(Debug, Clone, PartialEq)]
pub struct TranscribeOptions {
    /// Code of the spoken language, such as `en`; detected if `None`.
    pub language: Option<String>,
    /// Transcription, or translation to English.
    pub task: Task,
    /// Temperatures to try in order, until the result is probable and not repetitive. 0 is greedy or beam search.
    pub temperatures: Vec<f32>,
    /// Beam size at temperature 0; 1 is greedy.
    pub beam_size: usize,
    /// Number of candidates to sample at other temperatures.
    pub best_of: usize,
    /// Whether to compute [`Segment::words`](super::Segment::words).
    pub word_timestamps: bool,
    /// Skips audio without speech if set.
    pub vad: Option<VadOptions>,
    /// Tokens of text that precedes the recording.
    pub initial_prompt: Vec<u32>,
    /// Whether the text of previous windows is the prompt of the next.
    pub condition_on_previous_text: bool,
    /// Text with a higher compression ratio is repetitive and decoded again.
    pub compression_ratio_threshold: f32,
    /// Text with a lower mean log probability is improbable and decoded again.
    pub logprob_threshold: f32,
    /// A window is silent if the probability of no speech is higher than this and its text is improbable.
    pub no_speech_threshold: f32,
}

impl Default for TranscribeOptions {
    fn default() -> Self {
        Self {
            language: None,
            task: Task::Transcribe,
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            beam_size: 5,
            best_of: 5,
            word_timestamps: false,
            vad: None,
            initial_prompt: vec![],
            condition_on_previous_text: true,
            compression_ratio_threshold: 2.4,
            logprob_threshold: -1.0,
            no_speech_threshold: 0.6,
        }
    }
}
