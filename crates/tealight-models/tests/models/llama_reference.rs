//! Logits of Llama models against an implementation in float64 (tests/llama_reference.py).

use crate::support::{cosine, floats, ids, llama_fixture, read_json, simd_isas, text_downloads};
use serde_json::{Value, json};
use std::path::Path;
use tealight_kernels::{CpuContext, Isa};
use tealight_models::families::llama::{self, Llama};
use tealight_models::pack::PackMetadata;

/// Minimum cosine similarity of logits of networks with random weights, which are the hardest to quantize.
const RANDOM_COSINE: f64 = 0.998;
/// Minimum cosine similarity of logits on AVX2, whose activations have 7 bits.
const RANDOM_COSINE_AVX2: f64 = 0.994;

pub const MODELS: [&str; 4] = ["version-0.bin", "version-1.bin", "version-2.bin", "scaled"];

fn goldens() -> Value {
    read_json(&llama_fixture("goldens.json"))
}

/// The models have tied and untied output matrices, grouped heads, and interleaved, half and scaled RoPE.
#[test]
fn logits_of_each_format_equal_reference() {
    let goldens = goldens();
    let tokens = ids(&goldens["ids"]);
    for name in MODELS {
        for isa in simd_isas() {
            let cpu = CpuContext::new(isa, 2);
            assert_logits(&Llama::load(&cpu, &llama_fixture(name)).unwrap(), &cpu, &tokens, &goldens[name], name);
        }
    }
}

/// Compares the logits after the first, the second and the last token.
fn assert_logits(model: &Llama, cpu: &CpuContext, tokens: &[u32], expected: &Value, name: &str) {
    let logits = model.forward(cpu, &mut model.new_sequence(tokens.len()), tokens, tokens.len(), || Ok(())).unwrap();
    let rows: Vec<&[f32]> = logits.chunks_exact(model.config.vocab_size).collect();
    assert_eq!(rows.len(), tokens.len());
    let isa = cpu.isa.as_str();
    let min = if isa == "avx2" { RANDOM_COSINE_AVX2 } else { RANDOM_COSINE };
    let expected = expected.as_array().unwrap();
    assert_eq!(expected.len(), 3);
    for (row, expected) in [rows[0], rows[1], rows[tokens.len() - 1]].iter().zip(expected) {
        let found = cosine(row, &floats(expected));
        println!("{name} on {isa}: {found:.5}");
        assert!(found > min, "{name} on {isa}: {found}");
    }
}

#[test]
fn sharded_safetensors_equal_single_file() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(llama_fixture("scaled").join(name), folder.path().join(name)).unwrap();
    }
    let whole = std::fs::read(llama_fixture("scaled").join("model.safetensors")).unwrap();
    let whole = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let part = |i: usize| format!("model-0000{}-of-00002.safetensors", i + 1);
    let mut map = serde_json::Map::new();
    for i in 0..2 {
        let tensors: Vec<_> =
            whole.tensors().into_iter().enumerate().filter(|(n, _)| n % 2 == i).map(|(_, t)| t).collect();
        map.extend(tensors.iter().map(|(name, _)| (name.clone(), part(i).into())));
        safetensors::serialize_to_file(tensors, None, &folder.path().join(part(i))).unwrap();
    }
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    let cpu = CpuContext::new(Isa::detect(), 2);
    let read = |path: &Path| {
        Llama::load(&cpu, path).map(|m| m.forward(&cpu, &mut m.new_sequence(3), &[1, 2, 3], 3, || Ok(())).unwrap())
    };
    let expected = read(&llama_fixture("scaled")).unwrap();
    assert!(read(folder.path()).unwrap() == expected);
    let packed = folder.path().join("packed.gguf");
    llama::pack(&cpu, folder.path(), &PackMetadata::default(), &packed).unwrap();
    assert!(read(&packed).unwrap() == expected);
    std::fs::remove_file(folder.path().join(part(1))).unwrap();
    assert!(read(folder.path()).unwrap_err().message.contains(&part(1)));
    std::fs::write(&index, r#"{"weight_map": {"a": "../../etc/passwd"}}"#).unwrap();
    let error = read(folder.path()).unwrap_err();
    assert!(error.message.contains("passwd") && !error.message.contains("etc"), "{error:?}");
    std::fs::remove_file(&index).unwrap();
    assert!(read(folder.path()).unwrap_err().message.contains("index.json"));
}

/// Files with random weights in every GGUF encoding; the gguf package decodes them for the reference.
#[test]
#[ignore = "needs files that tests/check_text makes"]
fn logits_of_each_gguf_encoding_equal_reference() {
    let folder = text_downloads().join("formats");
    let goldens = read_json(&folder.join("expected.json"));
    let tokens = ids(&goldens["ids"]);
    let formats: Vec<_> = goldens.as_object().unwrap().iter().filter(|(name, _)| *name != "ids").collect();
    assert_eq!(formats.len(), 11);
    for (name, expected) in formats {
        for isa in simd_isas() {
            let cpu = CpuContext::new(isa, 2);
            let model = Llama::load(&cpu, &folder.join(format!("{name}.gguf"))).unwrap();
            assert_logits(&model, &cpu, &tokens, expected, name);
            // Llama 3's pre-tokenizer starts a text with a special token if the file does not say so.
            assert_eq!(model.tokenizer.prefix, [0]);
        }
    }
}

#[test]
fn logits_are_independent_of_chunks_and_threads() {
    let tokens: Vec<u32> = (0..60).map(|i| (i * 37 + 5) % 300).collect();
    for isa in simd_isas() {
        let read = |threads: usize, cuts: &[usize]| {
            let cpu = CpuContext::new(isa, threads);
            let model = Llama::load(&cpu, &llama_fixture("scaled")).unwrap();
            let (mut state, mut logits, mut from) = (model.new_sequence(0), vec![], 0);
            for to in cuts {
                logits.extend(model.forward(&cpu, &mut state, &tokens[from..*to], to - from, || Ok(())).unwrap());
                from = *to;
            }
            logits
        };
        let expected = read(1, &[60]);
        assert!(read(2, &[60]) == expected, "{}", isa.as_str());
        assert!(read(1, &[1, 2, 3, 20, 59, 60]) == expected, "{}", isa.as_str());
        assert!(read(3, &(1..=60).collect::<Vec<_>>()) == expected, "{}", isa.as_str());
    }
}
