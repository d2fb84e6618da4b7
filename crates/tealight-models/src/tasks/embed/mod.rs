//! Embeddings: from the hidden states of an encoder to one vector per text.

pub mod pipeline;
mod pooling;

pub use pooling::{Pooling, pool};
