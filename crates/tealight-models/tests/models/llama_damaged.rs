//! Damaged Llama files are rejected.

use crate::support::{llama_fixture, text_downloads};
use std::time::{Duration, Instant};
use tealight_core::ErrorKind;
use tealight_kernels::{CpuContext, Isa};
use tealight_models::families::llama::Llama;

#[test]
#[ignore = "needs files that tests/check_text makes"]
fn impossible_numbers_are_rejected_when_loading() {
    let whole = std::fs::read(text_downloads().join("formats/F16.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let offset_of = |name: &str| whole.windows(name.len()).position(|w| w == name.as_bytes()).unwrap();
    // The four bytes between a key and its value are the type.
    let with_value = |key: &str, value: &[u8]| {
        let at = offset_of(key) + key.len() + 4;
        [&whole[..at], value, &whole[at + value.len()..]].concat()
    };
    let freq_factor = {
        let at = whole.len() - 4;
        let bytes: Vec<u8> = whole[..at].iter().chain(&f32::NAN.to_le_bytes()).copied().collect();
        bytes
    };
    let (old, new) = ("blk.0.attn_q.weight", "blk.0.attn_qqq.bias");
    let at = offset_of(old);
    let bias = [&whole[..at], new.as_bytes(), &whole[at + old.len()..]].concat();
    for (bytes, word) in [
        (with_value("llama.attention.layer_norm_rms_epsilon", &f32::NAN.to_le_bytes()), "eps"),
        (with_value("llama.attention.layer_norm_rms_epsilon", &(-1.0f32).to_le_bytes()), "eps"),
        (with_value("llama.rope.freq_base", &0.0f32.to_le_bytes()), "rope_theta"),
        (with_value("llama.block_count", &(1u32 << 24).to_le_bytes()), "num_hidden_layers is 16777216"),
        (with_value("llama.block_count", &900u32.to_le_bytes()), "blk.899"),
        (bias, "is a bias"),
        (freq_factor, ""),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let start = Instant::now();
        let error = Llama::load(&CpuContext::new(Isa::detect(), 1), &path).unwrap_err();
        assert!(error.kind == ErrorKind::ModelLoad && error.message.contains(word), "{word}: {error:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "{word}");
    }
    // JSON that is not a tokenizer.
    for name in ["config.json", "model.safetensors", "tokenizer_config.json"] {
        std::fs::copy(llama_fixture("scaled").join(name), folder.path().join(name)).unwrap();
    }
    let good = std::fs::read_to_string(llama_fixture("scaled").join("tokenizer.json")).unwrap();
    for bad in [good.replace("ByteLevel", "ByteLevem"), "{}".into(), good[..good.len() / 2].into()] {
        std::fs::write(folder.path().join("tokenizer.json"), bad).unwrap();
        assert_eq!(
            Llama::load(&CpuContext::new(Isa::detect(), 1), folder.path()).unwrap_err().kind,
            ErrorKind::ModelLoad
        );
    }
}

#[test]
fn damaged_llama2c_files_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    std::fs::copy(llama_fixture("tokenizer.bin"), folder.path().join("tokenizer.bin")).unwrap();
    let cpu = CpuContext::new(Isa::detect(), 1);
    let assert_rejected = |bytes: &[u8], word: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = Llama::load(&cpu, &path).unwrap_err();
        assert!(error.kind == ErrorKind::ModelLoad && error.message.contains(word), "{word}: {error:?}");
    };
    for name in ["version-0.bin", "version-1.bin", "version-2.bin"] {
        let bytes = std::fs::read(llama_fixture(name)).unwrap();
        for length in [1, 20, 100, 300, bytes.len() / 2, bytes.len() - 1] {
            assert_rejected(&bytes[..length], "");
        }
        assert_rejected(&[&bytes[..], &[0; 4]].concat(), "bytes");
        let first = if name == "version-0.bin" { 0 } else { 8 };
        for (i, value) in [(0, 33), (2, 0), (3, 0), (4, 3), (5, i32::MIN), (1, i32::MAX)] {
            let mut bytes = bytes.clone();
            bytes[first + 4 * i..first + 4 * i + 4].copy_from_slice(&i32::to_le_bytes(value));
            assert_rejected(&bytes, "");
        }
    }
    let good = std::fs::read(llama_fixture("version-1.bin")).unwrap();
    assert_rejected(&[&good[..4], &3i32.to_le_bytes(), &good[8..]].concat(), "version 3");
    std::fs::write(folder.path().join("tokenizer.bin"), [0; 40]).unwrap();
    assert_rejected(&good, "tokenizer.bin");
    std::fs::remove_file(folder.path().join("tokenizer.bin")).unwrap();
    std::fs::write(&path, &good).unwrap();
    assert_eq!(Llama::load(&cpu, &path).unwrap_err().kind, ErrorKind::Io);
}
