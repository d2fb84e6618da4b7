//! What the families of encoders share: their table, the names of hyperparameters, their files, and packing.

mod config;
mod family;
mod model_files;
mod pack;
mod smooth_quant;

pub(crate) use config::{
    Config, GLOBAL_ROPE_THETA, LAYER_NORM_EPS, LOCAL_ROPE_THETA, MOE_EVERY_N_LAYERS, MOE_TOP_K, NUM_EXPERTS,
    RMS_NORM_EPS, ROPE_THETA, SLIDING_WINDOW, SLIDING_WINDOW_PATTERN,
};
pub(crate) use family::{EncoderFamily, known_families};
pub(crate) use model_files::ModelFiles;
pub(crate) use pack::pack;
