//! Counts and times of a job.

use std::time::Duration;

/// Counts and times of one job, for logs, metrics, response headers and bodies.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Tokens that the model processed as input, including special tokens.
    pub tokens: usize,
    /// Unicode scalar values in the input texts.
    pub characters: usize,
    /// Time from text to token ids.
    pub tokenization_time: Duration,
    /// Time from token ids to embeddings; for transcription and text generation, the whole computation.
    pub inference_time: Duration,
    /// Length of the recordings.
    pub audio_duration: Duration,
    /// Generated tokens.
    pub completion_tokens: usize,
}
