//! The committed model against float32 vectors and tokens of an independent implementation (tests/goldens/make.py).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "support/isas.rs"]
mod isas;

use isas::available_isas;
use sha2::{Digest, Sha256};
use std::path::Path;
use tealight::config::Config;
use tealight::engine::{Embed, EmbedInputs, Engine, Input, Truncation};
use tealight_core::Deadline;
use tealight_kernels::CpuContext;
use tealight_kernels::Isa;
use tealight_models::Precision;
use tealight_models::tokenizer::TruncationDirection;
use tealight_models::{Embedder, TokenBatch};

/// The least mean cosine to float32 over the golden texts, and the least of any; many of them are noise to the model.
const COSINE: (f64, f64) = (0.999, 0.997);
/// The same on AVX2, whose activations have 7 bits.
const AVX2_COSINE: (f64, f64) = (0.998, 0.994);
/// The sha256 of the vectors of `short_texts`, float32 and little-endian, from every set but AVX2.
const BITS: &str = "6a6f718cff6db6d6726b66c30dc80168d837be49b56c83a12ba56c330f3ff0d2";
const D: usize = 384;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(root().join("tests/goldens").join(name)).unwrap()).unwrap()
}

/// The rows of the golden matrix: a version-1 `.npy` of float32.
fn vectors() -> Vec<Vec<f32>> {
    let bytes = std::fs::read(root().join("tests/goldens/vectors.npy")).unwrap();
    let header = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let values: Vec<f32> = bytes[10 + header..].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    values.chunks_exact(D).map(<[f32]>::to_vec).collect()
}

fn config() -> Config {
    let model = root().join("models/all-MiniLM-L6-v2.gguf").display().to_string();
    Config::from_lookup(|name| (name == "TEALIGHT_MODEL").then(|| model.clone())).unwrap()
}

fn engine(isa: Isa, threads: usize) -> Engine {
    Engine::new(Config { isa, threads, ..config() }).unwrap()
}

fn embed(engine: &Engine, texts: &[String]) -> Vec<Vec<f32>> {
    let inputs = texts.iter().cloned().map(Input::Text).collect();
    let truncation = Truncation::Truncate(TruncationDirection::Right);
    let texts = EmbedInputs { model: None, inputs, prompt: None, truncation, field: "input", first_index: 0 };
    engine.run(Embed { texts, normalize: true, dimensions: None }, Deadline::NONE).unwrap().vectors
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn short_texts() -> Vec<String> {
    json::<Vec<String>>("texts.json").into_iter().filter(|t| t.len() < 60).take(12).collect()
}

#[test]
fn vectors_are_those_of_float32() {
    let (texts, expected): (Vec<String>, _) = (json("texts.json"), vectors());
    assert!(texts.len() >= 200 && texts.len() == expected.len());
    for isa in available_isas().into_iter().filter(|isa| !matches!(isa.as_str(), "scalar" | "amx")) {
        let found = embed(&engine(isa, 2), &texts);
        let cosines: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| cosine(a, b)).collect();
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        let (worst, min) = cosines.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        println!("{}: mean cosine {mean:.6}, min {min:.6} at text {worst}", isa.as_str());
        let (least_mean, least) = if isa.as_str() == "avx2" { AVX2_COSINE } else { COSINE };
        assert!(mean >= least_mean, "{}: mean cosine {mean}", isa.as_str());
        assert!(*min >= least, "{}: cosine {min} of {:?}", isa.as_str(), texts[worst]);
        for vector in &found {
            assert!((vector.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn tokens_are_those_of_the_python_package() {
    let (texts, expected): (Vec<String>, Vec<Vec<u32>>) = (json("texts.json"), json("tokens.json"));
    let cpu = CpuContext::new(Isa::detect(), 1);
    let model = Embedder::load(&cpu, &root().join("models/all-MiniLM-L6-v2.gguf"), Precision::Int8).unwrap();
    for (text, expected) in texts.iter().zip(expected) {
        let ids = model.tokenizer.add_special_tokens(&model.tokenizer.encode(text).unwrap());
        assert_eq!(model.tokenizer.truncate(&ids, 256, TruncationDirection::Right), expected, "{text:?}");
    }
}

/// A text alone, between others, in another order, in several forward passes, on 1 and 2 threads: one vector.
#[test]
fn a_text_has_one_vector_whatever_its_company() {
    let all: Vec<String> = json("texts.json");
    for isa in available_isas() {
        // The portable set and emulated instructions are slow: fewer texts, and short ones.
        let slow = matches!(isa.as_str(), "scalar" | "amx");
        let texts: Vec<String> = match slow {
            true => all.iter().filter(|t| t.len() < 40).step_by(17).cloned().collect(),
            false => all.iter().step_by(3).cloned().collect(),
        };
        let whole = embed(&engine(isa, 1), &texts);
        let two = engine(isa, 2);
        assert_eq!(embed(&two, &texts), whole, "2 threads");
        for (text, vector) in texts.iter().zip(&whole) {
            assert_eq!(&embed(&two, std::slice::from_ref(text))[0], vector, "{} alone: {text:?}", isa.as_str());
        }
        let reversed: Vec<String> = texts.iter().rev().cloned().collect();
        assert!(embed(&two, &reversed).iter().rev().eq(&whole), "{} reversed", isa.as_str());
        let repeated: Vec<String> = texts.iter().flat_map(|t| vec![t.clone(); 3]).collect();
        for (three, vector) in embed(&two, &repeated).chunks(3).zip(&whole) {
            assert!(three.iter().all(|v| v == vector), "{} repeated", isa.as_str());
        }
    }
}

/// The same bits on every set and every machine, but for AVX2, whose codes are coarser.
#[test]
fn instruction_sets_agree_to_the_bit() {
    for isa in available_isas().into_iter().filter(|isa| isa.as_str() != "avx2") {
        let vectors = embed(&engine(isa, 1), &short_texts()).concat();
        let bytes: Vec<u8> = vectors.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(format!("{:x}", Sha256::digest(bytes)), BITS, "{}", isa.as_str());
    }
}

#[test]
fn token_ids_give_the_vector_of_their_text() {
    let engine = engine(Isa::detect(), 1);
    let loaded = engine.preload().unwrap();
    let ids = loaded.model.tokenizer.encode("hello world").unwrap();
    let complete = loaded.model.tokenizer.add_special_tokens(&ids);
    let run = |inputs| {
        let texts = EmbedInputs {
            model: None,
            inputs,
            prompt: None,
            truncation: Truncation::Error,
            field: "input",
            first_index: 0,
        };
        engine.run(Embed { texts, normalize: true, dimensions: None }, Deadline::NONE).unwrap().vectors
    };
    let vectors = run(vec![Input::Text("hello world".into()), Input::Ids(ids), Input::Ids(complete)]);
    assert!(vectors.iter().all(|v| *v == vectors[0]));
}

#[test]
fn a_batch_is_ragged() {
    let batch = TokenBatch::new([&[1u32, 2, 3][..], &[4][..]]);
    assert_eq!((batch.ids, batch.cu_seqlens), (vec![1, 2, 3, 4], vec![0, 3, 4]));
}
