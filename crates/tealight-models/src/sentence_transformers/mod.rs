//! The steps of sentence-transformers around an encoder: prompts before a text; pooling, dense layers and normalization after it.

mod dense;
mod folder;
mod gguf;
mod pipeline;
mod pooling;

pub use dense::Dense;
pub use pipeline::EmbeddingPipeline;
pub use pooling::{Pooling, pool};
