//! BPE tokenizers of text-generation models.

mod llama;
mod pretokenizer;
mod spec;

pub use llama::LlamaTokenizer;
pub use pretokenizer::Pretokenizer;
pub use spec::{BpeModel, BpeSpec};
