//! Encoders of every family against transformers (tests/fixtures/make_encoders.py).

use crate::support::{cosine_of, cpu, load, max_difference, read_json, root, tokenize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tealight_kernels::{CpuContext, Isa};
use tealight_models::formats::gguf::{self, Gguf, MetadataValue};
use tealight_models::pack::{PackMetadata, pack};
use tealight_models::tokenizer::TruncationDirection;
use tealight_models::{Embedder, Precision, TokenBatch, truncate_and_normalize};

/// Largest difference of a hidden state in float32 to transformers in float64; hidden states are up to 5.
const F32_TOLERANCE: f32 = 1e-4;
/// Smallest cosine similarity of hidden states in int8 to those in float64. The weights are random, so there is more noise than in
/// trained networks.
const INT8_COSINE: f32 = 0.99;
/// The same on AVX2 without VNNI, where activations have 7 bits.
const INT8_COSINE_7_BITS: f32 = 0.98;

#[derive(serde::Deserialize)]
struct Expected {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    last_hidden_state: Vec<Vec<Vec<f32>>>,
    embedding: Vec<Vec<f32>>,
}

struct Fixture {
    name: String,
    path: PathBuf,
    expected: Expected,
}

fn fixtures() -> Vec<Fixture> {
    let folder = root().join("tests/fixtures/encoders");
    let mut fixtures: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("model.safetensors").exists() && !path.ends_with("deberta-v2"))
        .filter_map(|path| {
            let expected = read_json(&path.join("expected.json"));
            let expected = serde_json::from_value(expected).ok()?;
            Some(Fixture { name: path.file_name().unwrap().to_str().unwrap().into(), path, expected })
        })
        .collect();
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(fixtures.len() >= 15, "{} fixtures", fixtures.len());
    fixtures
}

fn hidden_states(model: &Embedder, cpu: &CpuContext, ids: &[Vec<u32>]) -> Vec<Vec<f32>> {
    model.token_embeddings(cpu, &TokenBatch::new(ids.iter().map(Vec::as_slice))).unwrap()
}

fn embeddings(model: &Embedder, cpu: &CpuContext, ids: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let mut vectors = model.sentence_embeddings(cpu, &TokenBatch::new(ids.iter().map(Vec::as_slice))).unwrap();
    vectors.iter_mut().for_each(|vector| truncate_and_normalize(vector, None, true));
    vectors
}

fn min_cosine(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| cosine_of(a, b)).fold(1.0, f32::min)
}

#[test]
fn hidden_states_of_each_family_are_close_to_transformers() {
    let mut failures = vec![];
    for Fixture { name, path, expected } in fixtures() {
        let model = load(&path, Precision::Int8).unwrap_or_else(|e| panic!("{name}: {e}"));
        let short = &expected.ids[..expected.last_hidden_state.len()];
        let reference: Vec<Vec<f32>> = expected.last_hidden_state.iter().map(|rows| rows.concat()).collect();
        for isa in Isa::available() {
            let cpu = CpuContext::new(isa, 2);
            let hidden = min_cosine(&hidden_states(&model, &cpu, short), &reference);
            let pooled = min_cosine(&embeddings(&model, &cpu, &expected.ids), &expected.embedding);
            let limit = if isa.as_str() == "avx2" { INT8_COSINE_7_BITS } else { INT8_COSINE };
            println!("{name}, {}: cosine of hidden states {hidden}, of embeddings {pooled}", isa.as_str());
            if hidden.min(pooled) < limit {
                failures.push(format!("{name}, {}: {hidden} of hidden states, {pooled} of embeddings", isa.as_str()));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn token_ids_of_each_family_equal_transformers() {
    for Fixture { name, path, expected } in fixtures() {
        let model = load(&path, Precision::Int8).unwrap();
        for (text, ids) in expected.texts.iter().zip(&expected.ids) {
            assert_eq!(&tokenize(&model, text), ids, "{name}: {text:?}");
        }
    }
}

#[test]
fn convolution_of_deberta_v2_is_rejected() {
    let error = load(&root().join("tests/fixtures/encoders/deberta-v2"), Precision::Int8).unwrap_err();
    assert!(error.message.contains("conv_kernel_size 3"), "{error}");
}

/// candle-transformers has no network for the families that are listed.
#[cfg(feature = "reference")]
#[test]
fn hidden_states_in_float32_equal_transformers() {
    let mut failures = vec![];
    let without = ["gemma3", "gte", "jina-bert-code", "mpnet", "new-ntk", "new-types", "nomic-bert-moe"];
    for Fixture { name, path, expected } in fixtures() {
        let model = match load(&path, Precision::F32) {
            Ok(model) => model,
            Err(e) if without.contains(&name.as_str()) => {
                assert!(e.message.contains("candle"), "{name}: {e}");
                continue;
            }
            Err(e) => {
                failures.push(format!("{name}: {e}"));
                continue;
            }
        };
        assert!(!without.contains(&name.as_str()), "{name}");
        let short = &expected.ids[..expected.last_hidden_state.len()];
        let reference: Vec<Vec<f32>> = expected.last_hidden_state.iter().map(|rows| rows.concat()).collect();
        let difference = max_difference(&hidden_states(&model, &cpu(), short), &reference);
        println!("{name}: {difference:e}");
        if difference >= F32_TOLERANCE {
            failures.push(format!("{name} differs by {difference}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// A text alone, in a batch, and on other numbers of threads.
#[test]
fn hidden_states_of_each_family_depend_on_neither_batch_nor_threads() {
    for Fixture { name, path, expected } in fixtures() {
        let model = load(&path, Precision::Int8).unwrap();
        let together = hidden_states(&model, &cpu(), &expected.ids);
        for threads in [1, 3] {
            let cpu = CpuContext::new(Isa::detect(), threads);
            assert_eq!(hidden_states(&model, &cpu, &expected.ids), together, "{name} on {threads} threads");
            for (ids, expected) in expected.ids.iter().zip(&together) {
                assert_eq!(&hidden_states(&model, &cpu, std::slice::from_ref(ids))[0], expected, "{name} alone");
            }
        }
    }
}

#[test]
fn packed_model_of_each_family_is_close_to_transformers() {
    let folder = tempfile::tempdir().unwrap();
    for Fixture { name, path, expected } in fixtures() {
        let packed = folder.path().join(format!("{name}.gguf"));
        pack(&cpu(), &path, &PackMetadata::default(), None, &packed).unwrap_or_else(|e| panic!("{name}: {e}"));
        let model = load(&packed, Precision::Int8).unwrap();
        for (text, ids) in expected.texts.iter().zip(&expected.ids) {
            assert_eq!(&tokenize(&model, text), ids, "{name}: {text:?}");
        }
        let cosine = min_cosine(&embeddings(&model, &cpu(), &expected.ids), &expected.embedding);
        println!("{name}: {cosine}");
        assert!(cosine > INT8_COSINE_7_BITS, "{name}: cosine {cosine}");
    }
}

#[test]
fn texts_at_the_limit_are_encoded() {
    for Fixture { name, path, .. } in fixtures() {
        let model = load(&path, Precision::Int8).unwrap();
        let ids = vec![5; 4 * model.max_tokens()];
        let ids = model.tokenizer.truncate(&ids, model.max_tokens(), TruncationDirection::Right);
        assert_eq!(hidden_states(&model, &cpu(), &[ids])[0].len(), model.max_tokens() * model.hidden_size(), "{name}");
    }
}

/// Texts longer than a block of queries, whose parts have other keys if attention is causal or has a window.
#[test]
fn hidden_states_of_long_texts_depend_on_neither_batch_nor_threads() {
    let families = ["deberta-v3", "gemma3", "jina-bert", "modernbert", "mpnet", "qwen3"];
    for Fixture { name, path, .. } in fixtures().into_iter().filter(|f| families.contains(&f.name.as_str())) {
        let model = load(&path, Precision::Int8).unwrap();
        // MPNet has learned positions, so its texts are shorter.
        let length = if name == "mpnet" { model.max_tokens() } else { 200 };
        let text: Vec<u32> = (0..length as u32).map(|i| 10 + i * 7 % 90).collect();
        let texts = [text[..37].to_vec(), text.clone(), text[..length.min(129)].to_vec()];
        let expected = hidden_states(&model, &CpuContext::new(Isa::detect(), 1), &texts);
        for threads in [2, 3, 7] {
            let cpu = CpuContext::new(Isa::detect(), threads);
            assert!(hidden_states(&model, &cpu, &texts) == expected, "{name} on {threads} threads");
            assert!(
                hidden_states(&model, &cpu, std::slice::from_ref(&text))[0] == expected[1],
                "{name} alone on {threads} threads"
            );
        }
    }
}

#[test]
fn hidden_states_of_causal_encoder_do_not_depend_on_later_tokens() {
    let model = load(&root().join("tests/fixtures/encoders/qwen3"), Precision::Int8).unwrap();
    let text: Vec<u32> = (0..200).map(|i| 10 + i * 7 % 90).collect();
    let whole = hidden_states(&model, &cpu(), std::slice::from_ref(&text)).remove(0);
    for length in [1, 63, 64, 65, 100, 199] {
        let part = hidden_states(&model, &cpu(), &[text[..length].to_vec()]).remove(0);
        assert!(part == whole[..part.len()], "{length} tokens");
    }
}

/// Positions of other tokens do not count padding, which texts can contain.
#[test]
fn padding_token_in_text_does_not_shift_positions() {
    let model = load(&root().join("tests/fixtures/encoders/xlm-roberta"), Precision::Int8).unwrap();
    let pad = 1;
    let states = |ids: &[u32]| hidden_states(&model, &cpu(), &[ids.to_vec()]).remove(0);
    assert_ne!(states(&[0, 9, pad, 12, 2]), states(&[0, 9, 11, 12, 2]));
    #[cfg(feature = "reference")]
    {
        let reference = load(&root().join("tests/fixtures/encoders/xlm-roberta"), Precision::F32).unwrap();
        let expected = hidden_states(&reference, &cpu(), &[vec![0, 9, pad, 12, 13, 2]]).remove(0);
        // candle masks padding as a key, transformers does not unless a mask says so; positions dominate.
        assert!(cosine_of(&states(&[0, 9, pad, 12, 13, 2]), &expected) > 0.9);
    }
}

/// Every number and word of the description of a packed network, replaced by values that make no sense.
#[test]
fn hostile_description_of_packed_network_is_rejected_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["deberta-v3", "gemma3", "mpnet", "nomic-bert-moe"] {
        let packed = folder.path().join("packed.gguf");
        let source = root().join("tests/fixtures/encoders").join(name);
        pack(&cpu(), &source, &PackMetadata::default(), None, &packed).unwrap();
        let file = Gguf::parse(std::fs::read(&packed).unwrap().into()).unwrap();
        let spec: Value = serde_json::from_str(file.string("tealight.encoder").unwrap().unwrap()).unwrap();
        let values = [
            0.into(),
            1.into(),
            (1u64 << 63).into(),
            u64::MAX.into(),
            (-1).into(),
            "x".into(),
            Value::Null,
            1e39.into(),
        ];
        for path in paths(&spec) {
            for value in &values {
                let mut changed = spec.clone();
                *changed.pointer_mut(&path).unwrap() = value.clone();
                let hostile = folder.path().join("hostile.gguf");
                std::fs::write(&hostile, with_spec(&packed, &changed)).unwrap();
                let Ok(model) = load(&hostile, Precision::Int8) else { continue };
                for length in [1, 150] {
                    let ids = vec![5; length.min(model.max_tokens())];
                    let _ = model.token_embeddings(&cpu(), &TokenBatch::new([&ids[..]]));
                }
            }
        }
    }
}

/// The paths of all values that are no list or object; of equal layers only the first.
fn paths(value: &Value) -> Vec<String> {
    let inside = |key: &str, value: &Value| {
        paths(value).into_iter().map(move |path| format!("/{key}{path}")).collect::<Vec<_>>()
    };
    match value {
        Value::Object(fields) => fields.iter().flat_map(|(key, value)| inside(key, value)).collect(),
        Value::Array(items) => items.iter().take(1).flat_map(|item| inside("0", item)).collect(),
        _ => vec![String::new()],
    }
}

fn with_spec(packed: &Path, spec: &Value) -> Vec<u8> {
    let file = Gguf::parse(std::fs::read(packed).unwrap().into()).unwrap();
    let tensors: Vec<_> = file.tensors.into_iter().collect();
    let metadata = file.metadata.into_iter().map(|(key, value)| match key.as_str() {
        "tealight.encoder" => (key, MetadataValue::String(spec.to_string())),
        _ => (key, MetadataValue::Raw(value)),
    });
    let mut bytes = vec![];
    gguf::write(&mut bytes, &metadata.collect::<Vec<_>>(), &tensors).unwrap();
    bytes
}
