//! Text generation: what turns logits into text.

pub mod chat_template;
mod deep_stack;
mod grammar;
mod sampling;
mod stop_buffer;

pub use grammar::Constraint;
pub(crate) use grammar::Schemas;
pub use sampling::{Sampler, Sampling, best, log_probabilities};
pub use stop_buffer::Written;
