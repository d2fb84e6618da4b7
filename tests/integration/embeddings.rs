//! Embeddings of the default model against float32 embeddings of an independent implementation (tests/goldens/make.py), and of small
//! models with prompts and without special tokens.

use crate::isas::available_isas;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tealight::config::Config;
use tealight::engine::{Embed, EmbedInputs, Engine, Input, Truncation};
use tealight_core::Deadline;
use tealight_core::ErrorKind;
use tealight_kernels::Isa;
use tealight_models::Precision;
use tealight_models::tokenizer::TruncationDirection;

/// Minimum of the mean cosine similarity to float32 over the golden texts, and of each; many texts are noise to the model.
const MIN_COSINE: (f64, f64) = (0.999, 0.997);
/// The same with AVX2, whose activations have 7 bits.
const MIN_COSINE_AVX2: (f64, f64) = (0.998, 0.994);
/// The sha256 of the embeddings of `short_texts`, float32 and little-endian, with every instruction set except AVX2.
const EMBEDDINGS_SHA256: &str = "b86cbab4b23f15a8c47c8ebf6d0ebea3721f16c19dec9ffea926571e8794eae9";
const D: usize = 384;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(root().join("tests/goldens").join(name)).unwrap()).unwrap()
}

/// The golden embeddings: a `.npy` file of version 1, float32.
fn golden_embeddings() -> Vec<Vec<f32>> {
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
    let inputs = EmbedInputs { truncation, ..EmbedInputs::new(inputs) };
    engine.run(Embed { inputs, normalize: true, dimensions: None }, Deadline::NONE).unwrap().vectors
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn short_texts() -> Vec<String> {
    json::<Vec<String>>("texts.json").into_iter().filter(|t| t.len() < 60).take(12).collect()
}

#[test]
fn embeddings_are_close_to_float32() {
    let (texts, expected): (Vec<String>, _) = (json("texts.json"), golden_embeddings());
    assert!(texts.len() >= 200 && texts.len() == expected.len());
    for isa in available_isas().into_iter().filter(|isa| !matches!(isa.as_str(), "scalar" | "amx")) {
        let found = embed(&engine(isa, 2), &texts);
        let cosines: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| cosine(a, b)).collect();
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        let (worst, min) = cosines.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        println!("{}: mean cosine {mean:.6}, min {min:.6} at text {worst}", isa.as_str());
        let (min_mean, min_each) = if isa.as_str() == "avx2" { MIN_COSINE_AVX2 } else { MIN_COSINE };
        assert!(mean >= min_mean, "{}: mean cosine {mean}", isa.as_str());
        assert!(*min >= min_each, "{}: cosine {min} of {:?}", isa.as_str(), texts[worst]);
        for vector in &found {
            assert!((vector.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}

/// Alone, in a batch, in another order, in several forward passes, with 1 and 2 threads.
#[test]
fn embedding_is_independent_of_batch_and_threads() {
    let all: Vec<String> = json("texts.json");
    for isa in available_isas() {
        // Scalar code and emulated AMX are slow.
        let texts: Vec<String> = if matches!(isa.as_str(), "scalar" | "amx") {
            all.iter().filter(|t| t.len() < 40).step_by(17).cloned().collect()
        } else {
            all.iter().step_by(3).cloned().collect()
        };
        let expected = embed(&engine(isa, 1), &texts);
        let two = engine(isa, 2);
        assert_eq!(embed(&two, &texts), expected, "2 threads");
        for (text, vector) in texts.iter().zip(&expected) {
            assert_eq!(&embed(&two, std::slice::from_ref(text))[0], vector, "{} alone: {text:?}", isa.as_str());
        }
        let reversed: Vec<String> = texts.iter().rev().cloned().collect();
        assert!(embed(&two, &reversed).iter().rev().eq(&expected), "{} reversed", isa.as_str());
        let repeated: Vec<String> = texts.iter().flat_map(|t| vec![t.clone(); 3]).collect();
        for (three, vector) in embed(&two, &repeated).chunks(3).zip(&expected) {
            assert!(three.iter().all(|v| v == vector), "{} repeated", isa.as_str());
        }
    }
}

/// Except with AVX2, whose activations have fewer bits.
#[test]
fn embeddings_of_all_instruction_sets_are_bit_identical() {
    for isa in available_isas().into_iter().filter(|isa| isa.as_str() != "avx2") {
        let vectors = embed(&engine(isa, 1), &short_texts()).concat();
        let bytes: Vec<u8> = vectors.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(format!("{:x}", Sha256::digest(bytes)), EMBEDDINGS_SHA256, "{}", isa.as_str());
    }
}

#[test]
fn embedding_of_token_ids_equals_embedding_of_text() {
    let engine = engine(Isa::detect(), 1);
    let loaded = engine.preload().unwrap();
    let ids = loaded.model.tokenizer.encode("hello world").unwrap();
    let complete = loaded.model.tokenizer.add_special_tokens(&ids);
    let run = |inputs| {
        let inputs = EmbedInputs::new(inputs);
        engine.run(Embed { inputs, normalize: true, dimensions: None }, Deadline::NONE).unwrap().vectors
    };
    let vectors = run(vec![Input::Text("hello world".into()), Input::Ids(ids), Input::Ids(complete)]);
    assert!(vectors.iter().all(|v| *v == vectors[0]));
}

/// Maximum difference of a value to the reference in f32.
const F32_TOLERANCE: f32 = 1e-5;

/// A small sentence-transformers model (tests/fixtures/make_models.py).
fn small_model() -> PathBuf {
    root().join("tests/fixtures/models/tiny-st-old")
}

fn small_engine(model: &Path, precision: Precision) -> Engine {
    let model = model.display().to_string();
    Engine::new(Config { model, precision, ..Config::from_lookup(|_| None).unwrap() }).unwrap()
}

#[test]
fn prompt_is_prepended_to_text() {
    let engine = small_engine(&small_model(), Precision::F32);
    let embed = |texts: &[&str], prompt: Option<&str>| {
        let inputs = texts.iter().map(|text| Input::Text(text.to_string())).collect();
        let (prompt, truncation) = (prompt.map(str::to_string), Truncation::Truncate(TruncationDirection::Right));
        let inputs = EmbedInputs { prompt, truncation, ..EmbedInputs::new(inputs) };
        engine.run(Embed { inputs, normalize: true, dimensions: None }, Deadline::NONE).unwrap().vectors
    };
    let with_prompt = embed(&["The candle burns."], Some("query"));
    assert_eq!(with_prompt, embed(&["query: The candle burns."], None));
    assert_ne!(with_prompt, embed(&["The candle burns."], None));

    let expected = std::fs::read(root().join("tests/fixtures/models/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let expected = &expected["tiny-st-old"];
    let texts: Vec<&str> = expected["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let reference = &expected["prompt:query"];
    let reference = reference.get("embedding").unwrap_or(reference).clone();
    let reference: Vec<Vec<f32>> = serde_json::from_value(reference).unwrap();
    let found = embed(&texts, Some("query"));
    assert_eq!(found.concat().len(), reference.concat().len());
    let differences = found.iter().flatten().zip(reference.iter().flatten()).map(|(a, b)| (a - b).abs());
    assert!(differences.fold(0.0, f32::max) < F32_TOLERANCE);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &to) } else { assert!(std::fs::copy(&path, &to).is_ok()) }
    }
}

/// A tokenizer that adds no special tokens returns no tokens for whitespace.
#[test]
fn text_without_tokens_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&small_model(), folder.path());
    let file = folder.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    json["post_processor"] = Value::Null;
    std::fs::write(&file, json.to_string()).unwrap();
    for precision in [Precision::Int8, Precision::F32] {
        let engine = small_engine(folder.path(), precision);
        for texts in [vec![" "], vec!["hello", " \n ", "world"]] {
            let index = texts.len() / 2;
            let inputs = texts.into_iter().map(|t| Input::Text(t.into())).collect();
            let inputs = EmbedInputs::new(inputs);
            let error = engine.run(Embed { inputs, normalize: true, dimensions: None }, Deadline::NONE).unwrap_err();
            assert!(error.kind == ErrorKind::Empty && error.message.contains(&format!("input[{index}]")), "{error:?}");
        }
    }
}
