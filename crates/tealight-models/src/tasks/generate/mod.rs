//! Text generation: prompts, sampling, constrained decoding and stop sequences.

pub mod chat_template;
mod generator;
mod grammar;
mod large_stack;
mod prefix_cache;
mod sampling;
mod stop_buffer;

pub use generator::Generator;
pub use grammar::Constraint;
pub use sampling::{Sampler, SamplingParams, argmax, token_logprobs};
pub use stop_buffer::StopBuffer;
