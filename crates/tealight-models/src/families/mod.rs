//! Model architectures: the hyperparameters, the files and the network of each.

pub mod bert;
pub mod llama;
pub mod whisper;
