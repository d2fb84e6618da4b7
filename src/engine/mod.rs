//! Runs jobs on models: embeddings, transcription, text generation, search.
//!
//! A request becomes a [`Job`] with all defaults filled in, [`Engine::run`] runs it, and its output is passed to a format.
//!
//! ```text
//! Embed { inputs, .. } ─► Registry: find and load the model once ─► tokenize ─► batches ─► forward pass ─► pooling ─► Embeddings
//! ```
//!
//! | module | contents |
//! |---|---|
//! | [`job`] | [`Engine`], the trait [`Job`], and [`JobContext`]: the engine with one request's deadline |
//! | [`embed`] | jobs: embeddings of texts or of their tokens, cosine similarity |
//! | [`tokenize`] | jobs: text to tokens and back |
//! | [`search`] | job: search in the built-in index |
//! | [`speech`] | job: transcription |
//! | [`generate`] | job: text generation |
//! | [`inputs`] | texts of a request, and how they become token ids |
//! | [`registry`] | models by name, each loaded when it is first used |
//! | [`model_path`], [`hub`], [`catalog`] | where the files of a model are; the Hugging Face hub; models with short names |
//! | [`inventory`] | installed models, without loading them |

pub mod catalog;
pub mod embed;
#[cfg(feature = "text")]
pub mod generate;
pub mod hub;
pub mod inputs;
pub mod inventory;
pub mod job;
#[cfg(feature = "index")]
mod lazy_index;
mod load_timer;
mod model_cache;
pub mod model_path;
mod model_task;
pub mod registry;
#[cfg(feature = "index")]
pub mod search;
#[cfg(feature = "speech")]
pub mod speech;
pub mod tokenize;

pub use embed::{Embed, EmbedTokens, Embeddings, MAX_BATCH_TOKENS, Similarity, TokenEmbeddings, ValidateOptions};
pub use inputs::{EmbedInputs, Input, Truncation};
pub use job::{Engine, Job, JobContext};
pub use load_timer::LoadTimer;
pub use model_cache::LoadedModel;
pub use model_task::ModelTask;
pub use tokenize::{Detokenize, Tokenize};
