//! OpenAI's audio routes (<https://platform.openai.com/docs/api-reference/audio>), and embeddings of audio.

mod embeddings;
mod events;
mod fields;
mod form;
mod multipart;
mod request;
mod transcriptions;
mod usage;

pub use embeddings::{AudioEmbeddingsResponse, SegmentEmbedding, embeddings};
pub use fields::{AudioRequest, ChunkingStrategy, ServerVad};
pub use transcriptions::{transcriptions, translations};
