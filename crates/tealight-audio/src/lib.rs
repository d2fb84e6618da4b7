//! Audio files to 16 kHz mono samples, voice activity detection (VAD), and the log-mel spectrogram that speech models read.
//!
//! ```text
//! bytes of a file ── Recording ── Samples: blocks of f32 at 16 kHz, mono ─┬─ VoiceDetector: sample ranges with speech
//!                                                                         └─ Spectrogram: log-mel frames, one per 10 ms
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `recording` | [`Recording`] and [`Samples`]: the decoder and the resampler, connected |
//! | `decode` | containers and codecs: Symphonia, and `aac` and `opus` for these two codecs |
//! | `repair`, `mp4` | wrong lengths in headers of truncated or streamed files; encoder delays in MP4 edit lists |
//! | `resample` | any sample rate to [`SAMPLE_RATE`] |
//! | [`log_mel`], `fft` | [`Spectrogram`](log_mel::Spectrogram), as openai/whisper computes it; the FFT of its frames |
//! | `vad` | [`VoiceDetector`] |
//!
//! Apart from the bytes of the file, memory use does not depend on the length of a recording: samples come in blocks of about one
//! codec packet, and a recording can be decoded any number of times.
//!
//! ```
//! use tealight_audio::{Recording, SAMPLE_RATE};
//! use tealight_kernels::Isa;
//!
//! // One second of silence as an 8-bit WAV file.
//! let mut wav = b"RIFF\xa4\x3e\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\x80\x3e\0\0\x01\0\x08\0data\x80\x3e\0\0".to_vec();
//! wav.resize(wav.len() + SAMPLE_RATE, 128);
//! let recording = Recording::open(wav.into())?;
//! let mut count = 0;
//! for block in recording.samples(Isa::detect())? {
//!     count += block?.len();
//! }
//! assert_eq!(count, SAMPLE_RATE);
//! # Ok::<(), tealight_core::Error>(())
//! ```

mod aac;
mod decode;
mod error;
mod fft;
pub mod log_mel;
mod mp4;
mod opus;
mod recording;
mod repair;
mod resample;
mod sample_rate;
mod unsupported;
mod vad;

pub use recording::{Recording, Samples};
pub use sample_rate::SAMPLE_RATE;
pub use vad::{VadOptions, VoiceDetector};
