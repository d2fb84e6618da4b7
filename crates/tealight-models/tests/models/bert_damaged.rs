//! Damaged BERT files and folders are rejected with an error that names the damage.

use crate::support::{bert_fixtures, copy_folder, cpu, load};
use std::path::Path;
use tealight_core::mmap::map_file;
use tealight_core::{ErrorKind, Result};
use tealight_models::formats::gguf::Gguf;
use tealight_models::{Embedder, Precision, TokenBatch};

/// A small valid file, to be damaged.
fn tiny() -> Vec<u8> {
    std::fs::read(bert_fixtures().join("tiny-bert-f32.gguf")).unwrap()
}

pub fn load_bytes(bytes: &[u8]) -> Result<Embedder> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    load(&path, Precision::Int8)
}

pub fn assert_rejected(what: &str, bytes: &[u8], words: &[&str]) {
    let error = load_bytes(bytes).err().unwrap_or_else(|| panic!("{what} was accepted"));
    assert_eq!(error.kind, ErrorKind::ModelLoad, "{what}: {error}");
    assert!(error.message.contains("m.gguf"), "{what}: {error} does not name the file");
    for word in words {
        assert!(error.message.contains(word), "{what}: {error:?} does not say {word:?}");
    }
}

/// Overwrites the value of a key.
fn with_value(key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = tiny();
    let at = bytes.windows(key.len()).position(|w| w == key.as_bytes()).unwrap() + key.len() + 4;
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn file_of_another_format_is_rejected() {
    assert_rejected("empty", b"", &["empty"]);
    assert_rejected("a text", b"hello, this is not a model at all", &["GGUF"]);
    assert_rejected("magic only", b"GGUF", &["version"]);
    let mut version = tiny();
    version[4] = 9;
    assert_rejected("version 9", &version, &["version is 9"]);
    let missing = load(&bert_fixtures().join("nothing.gguf"), Precision::Int8).unwrap_err();
    assert!(missing.message.contains("nothing.gguf"), "{missing}");
}

#[test]
fn file_truncated_at_any_length_is_rejected() {
    let whole = tiny();
    for length in (0..whole.len()).step_by(97).chain(whole.len() - 3..whole.len()) {
        assert!(load_bytes(&whole[..length]).is_err(), "cut to {length} of {}", whole.len());
    }
}

#[test]
fn header_with_impossible_number_is_rejected() {
    let put = |at: usize, value: u64| {
        let mut bytes = tiny();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    for value in [u64::MAX, 1 << 40, 1 << 21] {
        assert_rejected("tensor count", &put(8, value), &["tensor count", &value.to_string()]);
        assert_rejected("metadata count", &put(16, value), &["metadata count", &value.to_string()]);
    }
    assert_rejected("length of the first key", &put(24, u64::MAX), &["metadata key"]);
    assert_rejected(
        "architecture",
        &with_value("general.architecture", &[4, 0, 0, 0, 0, 0, 0, 0, b'g', b'p', b't', b'2']),
        &["gpt2"],
    );
    let number = |key: &str, n: u32| with_value(key, &n.to_le_bytes());
    assert_rejected("no heads", &number("bert.attention.head_count", 0), &["0 heads"]);
    assert_rejected("7 heads", &number("bert.attention.head_count", 7), &["7 heads"]);
    assert_rejected("layers", &number("bert.block_count", u32::MAX), &["4294967295"]);
    assert_rejected("more layers than there are", &number("bert.block_count", 3), &["blk.2"]);
    assert_rejected("width", &number("bert.embedding_length", 1 << 30), &["shape"]);
    assert_rejected("positions", &number("bert.context_length", u32::MAX), &["position_embd.weight"]);
    assert_rejected("inner width", &number("bert.feed_forward_length", 1), &["ffn_up"]);
}

/// The offset of a tensor's dimensions, after its name and the number of dimensions.
fn dimensions_of(name: &str) -> usize {
    let bytes = tiny();
    let name = [&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat();
    bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4
}

#[test]
fn tensor_with_impossible_shape_offset_or_type_is_rejected() {
    let at = dimensions_of("token_embd.weight");
    let with = |offset: usize, value: u64| {
        let mut bytes = tiny();
        bytes[at + offset..at + offset + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    for value in [u64::MAX, 1 << 62, 1 << 33] {
        assert_rejected("a dimension that overflows", &with(0, value), &["token_embd.weight"]);
        assert_rejected("an offset past the end", &with(20, value), &["token_embd.weight", "offset"]);
    }
    assert_rejected("an offset that is not aligned", &with(20, 3), &["offset 3"]);
    assert_rejected("another shape", &with(0, 16), &["token_embd.weight"]);
    let mut kind = tiny();
    kind[at + 16..at + 20].copy_from_slice(&99u32.to_le_bytes());
    assert_rejected("an unknown type", &kind, &["type 99"]);
    let mut dimensions = tiny();
    dimensions[at - 4..at].copy_from_slice(&200u32.to_le_bytes());
    assert_rejected("200 dimensions", &dimensions, &["200 dimensions"]);
}

/// A damaged byte gives an error or a model that works, never a panic.
#[test]
fn header_with_any_byte_changed_does_not_panic() {
    let whole = tiny();
    let file = Gguf::parse(map_file(&bert_fixtures().join("tiny-bert-f32.gguf")).unwrap()).unwrap();
    let data: usize = file.tensors.values().map(|t| t.data.len().next_multiple_of(32)).sum();
    let header = whole.len() - data;
    for at in (0..header).step_by(11) {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            if let Ok(model) = load_bytes(&bytes) {
                let ids = model.tokenizer.add_special_tokens(&[5, 6]);
                let _ = model.sentence_embeddings(&cpu(), &TokenBatch::new([&ids[..]]));
            }
        }
    }
}

#[test]
fn nan_in_f32_weight_is_rejected() {
    let file = Gguf::parse(map_file(&bert_fixtures().join("tiny-bert-f32.gguf")).unwrap()).unwrap();
    for name in ["blk.0.attn_q.weight", "blk.1.ffn_down.bias", "token_embd_norm.weight"] {
        let mut bytes = tiny();
        let values = &file.tensors[name].data;
        let at = bytes.windows(values.len()).position(|w| w == values).unwrap();
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_rejected("NaN", &bytes, &[name, "NaN"]);
    }
}

#[test]
fn nan_in_q8_0_scale_is_rejected() {
    let mut bytes = std::fs::read(bert_fixtures().join("tiny-bert-q8_0.gguf")).unwrap();
    let file = Gguf::parse(map_file(&bert_fixtures().join("tiny-bert-q8_0.gguf")).unwrap()).unwrap();
    let blocks = &file.tensors["blk.0.ffn_up.weight"].data;
    let at = bytes.windows(blocks.len()).position(|w| w == blocks).unwrap();
    bytes[at..at + 2].copy_from_slice(&[0x00, 0x7e]);
    assert_rejected("a NaN", &bytes, &["blk.0.ffn_up.weight", "NaN"]);
}

fn assert_folder_rejected(change: impl Fn(&Path), words: &[&str]) {
    let folder = copy_folder("tiny-st-old");
    change(folder.path());
    let error = load(folder.path(), Precision::Int8).unwrap_err();
    for word in words {
        assert!(error.message.contains(word), "{error:?} does not say {word:?}");
    }
}

#[test]
fn damaged_folder_is_rejected() {
    let remove = |name: &'static str| move |f: &Path| std::fs::remove_file(f.join(name)).unwrap();
    let write = |name: &'static str, text: &'static str| move |f: &Path| std::fs::write(f.join(name), text).unwrap();
    assert_folder_rejected(remove("config.json"), &["config.json is missing"]);
    assert_folder_rejected(remove("model.safetensors"), &["model.safetensors is missing"]);
    assert_folder_rejected(remove("1_Pooling/config.json"), &["1_Pooling", "missing"]);
    assert_folder_rejected(write("config.json", "{"), &["config.json", "not JSON"]);
    assert_folder_rejected(write("config.json", "{\"model_type\":\"t5\"}"), &["\"t5\"", "bert"]);
    assert_folder_rejected(write("config.json", "{\"model_type\":\"bert\"}"), &["vocab_size"]);
    assert_folder_rejected(write("modules.json", "{}"), &["modules.json"]);
    assert_folder_rejected(write("modules.json", "[{\"type\":\"x.y.CNN\",\"path\":\"\"}]"), &["x.y.CNN"]);
    assert_folder_rejected(write("1_Pooling/config.json", "{\"pooling_mode\":\"attention\"}"), &["attention"]);
    assert_folder_rejected(write("1_Pooling/config.json", "{}"), &["exactly one"]);
    assert_folder_rejected(write("tokenizer.json", "{}"), &["tokenizer.json"]);
    assert_folder_rejected(write("model.safetensors", "xxxxxxxxxxxxxxxx"), &["safetensors"]);
    assert_folder_rejected(write("model.safetensors", ""), &["empty"]);
    assert_folder_rejected(
        |f| {
            std::fs::remove_file(f.join("tokenizer.json")).unwrap();
            std::fs::remove_file(f.join("vocab.txt")).unwrap();
        },
        &["neither tokenizer.json nor vocab.txt"],
    );
}
