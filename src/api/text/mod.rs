//! OpenAI's routes for text generation.
//!
//! [`chat`] and [`completions`] parse their requests and shape their responses. They share the sampling options and the generation
//! itself.

pub mod chat;
pub mod completions;
mod generation;
pub mod sampling_options;
mod token_text;
