//! BPE tokenizers of text-generation models.

mod llama;
mod piece;
mod pretokenizer;
mod spec;

pub use llama::LlamaTokenizer;
pub use pretokenizer::Pretokenizer;
pub use spec::{BpeModel, BpeSpec};
