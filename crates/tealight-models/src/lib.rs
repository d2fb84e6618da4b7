//! Embedding, Whisper and Llama models on the CPU, with int8 and 4-bit weights.
//!
//! A model file becomes a network, and a task runs it:
//!
//! ```text
//! path -> Architecture::detect -> families -> EncoderSpec -> int8 executor -> tasks::embed
//!                                 families::{llama, whisper} -> tasks::{generate, transcribe}
//!             formats: tensors, as stored or in f32            \-> tealight-kernels: packed matrices, GEMM, attention
//! ```
//!
//! | module | content |
//! |---|---|
//! | [`layers`] | parts that the networks share: activations, LayerNorm, RoPE |
//! | [`formats`] | readers of GGUF, safetensors, CTranslate2, ggml and llama2.c files, and [`formats::weights::Weights`], their common view |
//! | [`tokenizer`] | text to token ids and back |
//! | [`sentence_transformers`] | prompts, pooling, dense layers and normalization around an encoder |
//! | [`spec`] | an encoder network as data |
//! | [`int8`] | the executor of encoders |
//! | [`families`] | what each family of encoders says about its networks and files; Llama and Whisper |
//! | [`tasks`] | embeddings, text generation, transcription |
//! | [`pack`](mod@pack) | writes a model as one GGUF file whose weights are used in place: read from the mapping, not copied |
//!
//! Modules depend only on those above them in the table.
//!
//! Cargo features: `reference` adds encoders in float32, `speech` Whisper and transcription, `text` Llama and text generation. Encoders
//! in int8 are always there.
//!
//! Shapes are written `[T, D]`, row-major: `B` texts, `T` tokens of a batch without padding, `H` attention heads, `D` values of a
//! hidden state or an embedding, `K` inputs and `N` outputs of a matrix product, `I` values of the inner dimension of a feed-forward
//! network, `G` values of a quantization group, `V` tokens of a vocabulary ("V padded": rounded up to a multiple of 16).
//!
//! A *family* is a group of models with one *architecture*, such as BERT, and has a module in [`families`]. Files name their
//! [`Architecture`] in `general.architecture` or `model_type`; the name `mistral` means Llama's. A *packed file* is a GGUF file
//! whose matrices are stored as the kernels read them.
//!
//! ```no_run
//! use std::path::Path;
//! use tealight_kernels::{CpuContext, Isa};
//! use tealight_models::{Embedder, Precision, TokenBatch, truncate_and_normalize};
//!
//! # fn main() -> tealight_core::Result<()> {
//! let cpu = CpuContext::new(Isa::detect(), 2);
//! let model = Embedder::load(&cpu, Path::new("models/all-MiniLM-L6-v2.gguf"), Precision::Int8)?;
//! let ids = model.tokenizer.add_special_tokens(&model.tokenizer.encode("hello world")?);
//! let mut vectors = model.sentence_embeddings(&cpu, &TokenBatch::new([&ids[..]]))?;
//! truncate_and_normalize(&mut vectors[0], None, true);
//! # Ok(())
//! # }
//! ```

mod batch;
mod detect;
mod embedder_load;
pub mod families;
pub mod formats;
pub mod int8;
pub mod layers;
mod model_info;
pub mod pack;
#[cfg(feature = "reference")]
pub mod reference;
pub mod sentence_transformers;
pub mod spec;
pub mod tasks;
mod text_encoder;
pub mod tokenizer;

pub use batch::TokenBatch;
pub use detect::Architecture;
pub use formats::weights::Precision;
pub use model_info::ModelInfo;
pub use sentence_transformers::Pooling;
pub use tasks::embed::{Embedder, truncate_and_normalize};
pub use text_encoder::TextEncoder;
