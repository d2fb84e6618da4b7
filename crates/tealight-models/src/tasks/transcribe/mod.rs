//! Speech-to-text with Whisper. Names, steps and thresholds are openai/whisper's (`transcribe.py`, `decoding.py`, `timing.py`).
//!
//! ```text
//! samples ── WindowReader ── MelWindow: log-mel frames of 30 s ── encoder ── DecodingTask, at rising temperatures ── Segments
//!                 ^                                                                                                     │
//!                 └──────────────────────── next position: the last timestamp of the window ────────────────────────────┘
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `options` | [`TranscribeOptions`], [`Task`] |
//! | `segment` | [`Transcript`], [`Segment`], [`Word`] |
//! | `windows` | [`WindowReader`]: log-mel windows of a recording, in bounded memory |
//! | `transcriber` | [`transcribe`]: the loop over windows, prompts from previous text |
//! | `language` | the requested or detected language |
//! | `fallback` | decoding at higher temperatures if the result is improbable or repetitive |
//! | `decode` | one window to tokens: greedy, beam search, sampling |
//! | `logit_filters` | which tokens may come next |
//! | `split` | tokens of a window to segments |
//! | `word_timestamps`, `alignment` | word timestamps from cross-attention |

mod alignment;
mod decode;
mod fallback;
mod language;
mod logit_filters;
mod options;
mod segment;
mod split;
mod transcriber;
mod windows;
mod word_timestamps;

pub use options::{Task, TranscribeOptions};
pub use segment::{Segment, Transcript, Word};
pub use transcriber::transcribe;
pub use windows::{MelWindow, SampleBlocks, WindowReader};
