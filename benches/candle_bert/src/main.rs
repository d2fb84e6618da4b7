//! Measures candle-transformers' BERT in float32 on the CPU.
//!
//! `candle_bert FOLDER bench 1x16 32x128` prints one object per shape: milliseconds from token ids to hidden states.
//! `candle_bert FOLDER embed TOKENS.json` prints one normalized embedding per line, each from a list of token ids.
//! RAYON_NUM_THREADS and CANDLE_NUM_THREADS set the number of threads.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use std::path::Path;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const DEVICE: Device = Device::Cpu;
const WARM_UPS: usize = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, command, rest @ ..] = arguments.as_slice() else {
        return Err("usage: candle_bert FOLDER bench|embed ARGUMENT...".into());
    };
    let model = load(Path::new(folder))?;
    match command.as_str() {
        "bench" => rest.iter().try_for_each(|shape| bench(&model, shape)),
        "embed" => rest.iter().try_for_each(|tokens| embed(&model, tokens)),
        _ => Err(format!("unknown command {command:?}").into()),
    }
}

fn load(folder: &Path) -> Result<BertModel> {
    let config: Config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let weights = std::fs::read(folder.join("model.safetensors"))?;
    let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &DEVICE)?;
    Ok(BertModel::load(weights, &config)?)
}

fn bench(model: &BertModel, shape: &str) -> Result<()> {
    let (batch, tokens) = shape.split_once('x').ok_or("invalid shape; expected BATCHxTOKENS, such as 32x128")?;
    let (batch, tokens) = (batch.parse()?, tokens.parse()?);
    let ids = random_ids(batch, tokens)?;
    for _ in 0..WARM_UPS {
        hidden_states(model, &ids)?;
    }
    // The same number of runs as baselines/ort.py and `tealight bench embed`.
    let mut times = vec![];
    for _ in 0..(20_000 / (batch * tokens)).clamp(5, 100) {
        let start = Instant::now();
        hidden_states(model, &ids)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (median, minimum) = (times[times.len() / 2], times[0]);
    println!("{}", serde_json::json!({"batch": batch, "tokens": tokens, "ms_median": median, "ms_min": minimum}));
    Ok(())
}

/// Token ids of ordinary words from a fixed linear congruential generator (Knuth, MMIX), so that every run measures the same.
fn random_ids(batch: usize, tokens: usize) -> candle_core::Result<Tensor> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1_000 + ((state >> 33) % 29_000) as u32
    };
    let ids: Vec<u32> = (0..batch * tokens).map(|_| next()).collect();
    Tensor::from_vec(ids, (batch, tokens), &DEVICE)
}

fn hidden_states(model: &BertModel, ids: &Tensor) -> candle_core::Result<Tensor> {
    model.forward(ids, &ids.zeros_like()?, None)
}

fn embed(model: &BertModel, path: &str) -> Result<()> {
    let texts: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(path)?)?;
    for ids in texts {
        let mean = hidden_states(model, &Tensor::new(ids, &DEVICE)?.unsqueeze(0)?)?.mean(1)?;
        let vector = mean.broadcast_div(&mean.sqr()?.sum_keepdim(1)?.sqrt()?)?;
        println!("{}", serde_json::to_string(&vector.squeeze(0)?.to_vec1::<f32>()?)?);
    }
    Ok(())
}
