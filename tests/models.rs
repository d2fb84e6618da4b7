//! Every kind of model file against an independent float reference (tests/fixtures/make_models.py), and damaged files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tealight::config::Config;
use tealight::engine::{Embed, EmbedInputs, Engine, Input, Truncation};
use tealight::{Error, ErrorKind};
use tealight_core::Deadline;
use tealight_core::mmap::map_file;
use tealight_kernels::CpuContext;
use tealight_kernels::Isa;
use tealight_models::Precision;
use tealight_models::formats::gguf::{self, Gguf};
use tealight_models::formats::tensor::TensorData;
use tealight_models::pack::{PackMetadata, pack};
use tealight_models::sentence_transformers::{Pooling, pool};
use tealight_models::tokenizer::TruncationDirection;
use tealight_models::{Embedder, TokenBatch};

/// The largest difference of a value to the reference, computing in f32 on weights as stored. The tanh approximation
/// of GELU would be off by 9e-5, a wrong epsilon by 6e-5.
const F32_TOLERANCE: f32 = 1e-5;
/// The cosine to the reference with 8-bit arithmetic.
const INT8_COSINE: f32 = 0.999;

#[derive(serde::Deserialize)]
struct Expected {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    embedding: Vec<Vec<f32>>,
    pooled: Option<BTreeMap<String, Vec<Vec<f32>>>>,
    #[serde(rename = "prompt:query")]
    prompt: Option<Value>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models")
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_slice(&std::fs::read(fixtures().join("expected.json")).unwrap()).unwrap()
}

fn cpu() -> CpuContext {
    CpuContext::new(Isa::detect(), 2)
}

fn load(path: &Path, precision: Precision) -> Result<Embedder, Error> {
    Embedder::load(&cpu(), path, precision)
}

fn embed(path: &Path, precision: Precision, texts: &[String], prompt: Option<&str>) -> Vec<Vec<f32>> {
    let name = path.display().to_string();
    let config = Config::from_lookup(|n| (n == "TEALIGHT_MODEL").then(|| name.clone())).unwrap();
    let engine = Engine::new(Config { precision, ..config }).unwrap();
    let inputs = texts.iter().cloned().map(Input::Text).collect();
    let truncation = Truncation::Truncate(TruncationDirection::Right);
    let texts = EmbedInputs {
        model: None,
        inputs,
        prompt: prompt.map(str::to_string),
        truncation,
        field: "input",
        first_index: 0,
    };
    engine.run(Embed { texts, normalize: true, dimensions: None }, Deadline::NONE).unwrap().vectors
}

fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    assert_eq!(a.iter().flatten().count(), b.iter().flatten().count());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn worst_cosine(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let cosine = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    a.iter().zip(b).map(cosine).fold(1.0, f32::min)
}

#[test]
fn every_format_gives_the_reference_vectors() {
    for (name, expected) in expected() {
        let path = fixtures().join(&name);
        let found = embed(&path, Precision::F32, &expected.texts, None);
        let off = difference(&found, &expected.embedding);
        println!("{name}: {off:e}");
        assert!(off < F32_TOLERANCE, "{name} is off by {off}");
        let worst = worst_cosine(&embed(&path, Precision::Int8, &expected.texts, None), &expected.embedding);
        assert!(worst > INT8_COSINE, "{name}: cosine {worst}");
    }
}

#[test]
fn every_format_gives_the_tokens_of_the_python_package() {
    for (name, expected) in expected() {
        let model = load(&fixtures().join(&name), Precision::Int8).unwrap();
        for (text, ids) in expected.texts.iter().zip(&expected.ids) {
            let found = model.tokenizer.add_special_tokens(&model.tokenizer.encode(text).unwrap());
            let found = model.tokenizer.truncate(&found, model.max_tokens(), TruncationDirection::Right);
            assert_eq!(&found, ids, "{name}: {text:?}");
        }
    }
}

#[test]
fn every_pooling_gives_the_reference_vectors() {
    let expected = expected().remove("tiny-st-old").unwrap();
    let model = load(&fixtures().join("tiny-st-old"), Precision::F32).unwrap();
    let texts = model.token_embeddings(&cpu(), &TokenBatch::new(expected.ids.iter().map(Vec::as_slice))).unwrap();
    let all = expected.pooled.unwrap();
    assert_eq!(all.len(), Pooling::ALL.len());
    for (name, vectors) in all {
        let pooling = Pooling::from_name(&name).unwrap();
        let found: Vec<_> = texts.iter().map(|rows| pool(rows, model.hidden_size(), pooling)).collect();
        // Not scaled to length 1, so values are larger than those of a vector.
        assert!(difference(&found, &vectors) < 10.0 * F32_TOLERANCE, "{name}");
    }
}

#[test]
fn a_prompt_goes_before_the_text() {
    let path = fixtures().join("tiny-st-old");
    let texts = ["The candle burns.".to_string()];
    let with = embed(&path, Precision::F32, &texts, Some("query"));
    let spelled = embed(&path, Precision::F32, &["query: The candle burns.".to_string()], None);
    assert_eq!(with, spelled);
    assert_ne!(with, embed(&path, Precision::F32, &texts, None));
    let expected = expected().remove("tiny-st-old").unwrap();
    let vectors = expected.prompt.unwrap();
    let vectors = vectors.get("embedding").unwrap_or(&vectors).clone();
    let vectors: Vec<Vec<f32>> = serde_json::from_value(vectors).unwrap();
    let found = embed(&path, Precision::F32, &expected.texts, Some("query"));
    assert!(difference(&found, &vectors) < F32_TOLERANCE);
}

fn packed(source: &str, folder: &Path) -> PathBuf {
    let path = folder.join(format!("{source}.gguf"));
    let labels = PackMetadata { name: Some(source.into()), license: Some("MIT".into()), source: None };
    pack(&cpu(), &fixtures().join(source), &labels, None, &path).unwrap();
    path
}

#[test]
fn a_packed_model_is_its_source() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tiny-st-old", "tiny-st-new", "tiny-bert-f32.gguf", "tiny-bert-q8_0.gguf", "tiny-bert-q4_k.gguf"] {
        let path = packed(name, folder.path());
        let first = std::fs::read(&path).unwrap();
        packed(name, folder.path());
        assert_eq!(std::fs::read(&path).unwrap(), first, "{name}: equal input, equal bytes");
        let (a, b) = (load(&fixtures().join(name), Precision::Int8).unwrap(), load(&path, Precision::Int8).unwrap());
        assert_eq!(a.pipeline.prompts, b.pipeline.prompts);
        assert_eq!((a.pipeline.pooling, a.max_tokens()), (b.pipeline.pooling, b.max_tokens()));
        assert_eq!((b.info.name.as_deref(), b.info.license.as_deref()), (Some(name), Some("MIT")));
        let expected = expected().remove(name).unwrap();
        for precision in [Precision::Int8, Precision::F32] {
            let found = embed(&path, precision, &expected.texts, None);
            let worst = worst_cosine(&found, &expected.embedding);
            assert!(worst > INT8_COSINE, "{name} in {}: cosine {worst}", precision.as_str());
        }
    }
}

#[test]
fn a_packed_model_is_not_packed_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = packed("tiny-st-old", folder.path());
    let error = pack(&cpu(), &path, &PackMetadata::default(), None, &folder.path().join("again.gguf")).unwrap_err();
    assert!(error.message.contains("packed already"), "{error}");
    let source = fixtures().join("tiny-st-old");
    let error =
        pack(&cpu(), &source, &PackMetadata::default(), Some(" \n"), &folder.path().join("none.gguf")).unwrap_err();
    assert!(error.message.contains("calibration"), "{error}");
}

/// Every length, count and offset of a packed matrix is looked at when the model loads.
#[test]
fn a_damaged_packed_matrix_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = packed("tiny-st-old", folder.path());
    let good = std::fs::read(&path).unwrap();
    let file = Gguf::parse(map_file(&path).unwrap()).unwrap();
    for name in ["blk.0.attn_qkv.packed", "blk.1.ffn_down.packed"] {
        let data = &file.tensors[name].data;
        let at = good.windows(data.len()).position(|w| w == data).unwrap();
        for (offset, value) in [(0, 0), (4, 1), (8, 255), (12, 1)] {
            let mut bytes = good.clone();
            bytes[at + offset] = value;
            refused("a header", &bytes, &[name.trim_end_matches(".packed")]);
        }
    }
}

/// The committed model's header, for tests that bend it.
fn tiny() -> Vec<u8> {
    std::fs::read(fixtures().join("tiny-bert-f32.gguf")).unwrap()
}

fn load_bytes(bytes: &[u8]) -> Result<Embedder, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    load(&path, Precision::Int8)
}

fn refused(what: &str, bytes: &[u8], words: &[&str]) {
    let error = load_bytes(bytes).err().unwrap_or_else(|| panic!("{what} was accepted"));
    assert_eq!(error.kind, ErrorKind::ModelLoad, "{what}: {error}");
    assert!(error.message.contains("m.gguf"), "{what}: {error} does not name the file");
    for word in words {
        assert!(error.message.contains(word), "{what}: {error:?} does not say {word:?}");
    }
}

/// Puts a value over the one that follows the only occurrence of a key.
fn with_value(key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = tiny();
    let at = bytes.windows(key.len()).position(|w| w == key.as_bytes()).unwrap() + key.len() + 4;
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn a_file_that_is_no_model_is_refused() {
    refused("empty", b"", &["empty"]);
    refused("a text", b"hello, this is not a model at all", &["GGUF"]);
    refused("magic only", b"GGUF", &["version"]);
    let mut version = tiny();
    version[4] = 9;
    refused("version 9", &version, &["version is 9"]);
    let missing = load(&fixtures().join("nothing.gguf"), Precision::Int8).unwrap_err();
    assert!(missing.message.contains("nothing.gguf"), "{missing}");
}

#[test]
fn a_cut_file_is_refused_wherever_it_is_cut() {
    let whole = tiny();
    for length in (0..whole.len()).step_by(97).chain(whole.len() - 3..whole.len()) {
        assert!(load_bytes(&whole[..length]).is_err(), "cut to {length} of {}", whole.len());
    }
}

#[test]
fn a_lying_header_is_refused() {
    let put = |at: usize, value: u64| {
        let mut bytes = tiny();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    for value in [u64::MAX, 1 << 40, 1 << 21] {
        refused("tensor count", &put(8, value), &["tensor count", &value.to_string()]);
        refused("metadata count", &put(16, value), &["metadata count", &value.to_string()]);
    }
    refused("length of the first key", &put(24, u64::MAX), &["metadata key"]);
    refused(
        "architecture",
        &with_value("general.architecture", &[4, 0, 0, 0, 0, 0, 0, 0, b'g', b'p', b't', b'2']),
        &["gpt2"],
    );
    let number = |key: &str, n: u32| with_value(key, &n.to_le_bytes());
    refused("no heads", &number("bert.attention.head_count", 0), &["0 heads"]);
    refused("7 heads", &number("bert.attention.head_count", 7), &["7 heads"]);
    refused("layers", &number("bert.block_count", u32::MAX), &["4294967295"]);
    refused("more layers than there are", &number("bert.block_count", 3), &["blk.2"]);
    refused("width", &number("bert.embedding_length", 1 << 30), &["shape"]);
    refused("positions", &number("bert.context_length", u32::MAX), &["position_embd.weight"]);
    refused("inner width", &number("bert.feed_forward_length", 1), &["ffn_up"]);
}

/// The place of a tensor's dimensions: after its name and the number of dimensions.
fn dimensions_of(name: &str) -> usize {
    let bytes = tiny();
    let name = [&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat();
    bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4
}

#[test]
fn lying_tensors_are_refused() {
    let at = dimensions_of("token_embd.weight");
    let with = |offset: usize, value: u64| {
        let mut bytes = tiny();
        bytes[at + offset..at + offset + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    for value in [u64::MAX, 1 << 62, 1 << 33] {
        refused("a dimension that overflows", &with(0, value), &["token_embd.weight"]);
        refused("an offset past the end", &with(20, value), &["token_embd.weight", "offset"]);
    }
    refused("an offset that is not aligned", &with(20, 3), &["offset 3"]);
    refused("another shape", &with(0, 16), &["token_embd.weight"]);
    let mut kind = tiny();
    kind[at + 16..at + 20].copy_from_slice(&99u32.to_le_bytes());
    refused("an unknown type", &kind, &["type 99"]);
    let mut dimensions = tiny();
    dimensions[at - 4..at].copy_from_slice(&200u32.to_le_bytes());
    refused("200 dimensions", &dimensions, &["200 dimensions"]);
}

/// Each byte of the header bent in turn: an error or a model that answers, never a panic.
#[test]
fn no_byte_of_a_header_makes_a_panic() {
    let whole = tiny();
    let file = Gguf::parse(map_file(&fixtures().join("tiny-bert-f32.gguf")).unwrap()).unwrap();
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
fn weights_that_are_no_numbers_are_refused() {
    let file = Gguf::parse(map_file(&fixtures().join("tiny-bert-f32.gguf")).unwrap()).unwrap();
    for name in ["blk.0.attn_q.weight", "blk.1.ffn_down.bias", "token_embd_norm.weight"] {
        let mut bytes = tiny();
        let values = &file.tensors[name].data;
        let at = bytes.windows(values.len()).position(|w| w == values).unwrap();
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        refused("NaN", &bytes, &[name, "NaN"]);
    }
}

/// Scales of a packed matrix are not looked at when a model loads, but its vectors are.
#[test]
fn a_nan_in_a_packed_weight_is_reported_by_the_first_vector() {
    let folder = tempfile::tempdir().unwrap();
    let path = packed("tiny-st-old", folder.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let file = Gguf::parse(map_file(&path).unwrap()).unwrap();
    let data = &file.tensors["blk.0.ffn_up.packed"].data;
    let at = bytes.windows(data.len()).position(|w| w == data).unwrap();
    // Behind the header, 32 factors of channels and the weights of 16 outputs, filled up to 64.
    let scale = at + 64 + 4 * 32 + 16 * 64;
    bytes[scale..scale + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let model = load_bytes(&bytes).unwrap();
    let ids = model.tokenizer.add_special_tokens(&[5, 6]);
    let error = model.sentence_embeddings(&cpu(), &TokenBatch::new([&ids[..]])).unwrap_err();
    assert!(error.kind == ErrorKind::ModelLoad && error.message.contains("damaged"), "{error}");
}

/// Numbers in a standard file are looked at when they are packed in memory.
#[test]
fn a_nan_in_a_quantised_weight_is_refused() {
    let mut bytes = std::fs::read(fixtures().join("tiny-bert-q8_0.gguf")).unwrap();
    let file = Gguf::parse(map_file(&fixtures().join("tiny-bert-q8_0.gguf")).unwrap()).unwrap();
    let blocks = &file.tensors["blk.0.ffn_up.weight"].data;
    let at = bytes.windows(blocks.len()).position(|w| w == blocks).unwrap();
    bytes[at..at + 2].copy_from_slice(&[0x00, 0x7e]);
    refused("a NaN", &bytes, &["blk.0.ffn_up.weight", "NaN"]);
}

/// A copy of a model folder, to be damaged.
fn copy(name: &str) -> tempfile::TempDir {
    fn all(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in from.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let to = to.join(path.file_name().unwrap());
            if path.is_dir() { all(&path, &to) } else { assert!(std::fs::copy(&path, &to).is_ok()) }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    all(&fixtures().join(name), folder.path());
    folder
}

fn folder_refused(change: impl Fn(&Path), words: &[&str]) {
    let folder = copy("tiny-st-old");
    change(folder.path());
    let error = load(folder.path(), Precision::Int8).unwrap_err();
    for word in words {
        assert!(error.message.contains(word), "{error:?} does not say {word:?}");
    }
}

#[test]
fn a_damaged_folder_is_refused() {
    let remove = |name: &'static str| move |f: &Path| std::fs::remove_file(f.join(name)).unwrap();
    let write = |name: &'static str, text: &'static str| move |f: &Path| std::fs::write(f.join(name), text).unwrap();
    folder_refused(remove("config.json"), &["config.json is missing"]);
    folder_refused(remove("model.safetensors"), &["model.safetensors is missing"]);
    folder_refused(remove("1_Pooling/config.json"), &["1_Pooling", "missing"]);
    folder_refused(write("config.json", "{"), &["config.json", "not JSON"]);
    folder_refused(write("config.json", "{\"model_type\":\"t5\"}"), &["\"t5\"", "bert"]);
    folder_refused(write("config.json", "{\"model_type\":\"bert\"}"), &["vocab_size"]);
    folder_refused(write("modules.json", "{}"), &["modules.json"]);
    folder_refused(write("modules.json", "[{\"type\":\"x.y.CNN\",\"path\":\"\"}]"), &["x.y.CNN"]);
    folder_refused(write("1_Pooling/config.json", "{\"pooling_mode\":\"attention\"}"), &["attention"]);
    folder_refused(write("1_Pooling/config.json", "{}"), &["exactly one"]);
    folder_refused(write("tokenizer.json", "{}"), &["tokenizer.json"]);
    folder_refused(write("model.safetensors", "xxxxxxxxxxxxxxxx"), &["safetensors"]);
    folder_refused(write("model.safetensors", ""), &["empty"]);
    folder_refused(
        |f| {
            std::fs::remove_file(f.join("tokenizer.json")).unwrap();
            std::fs::remove_file(f.join("vocab.txt")).unwrap();
        },
        &["neither tokenizer.json nor vocab.txt"],
    );
}

/// Without `tokenizer.json` the vocabulary and the configuration are enough.
#[test]
fn a_folder_with_only_a_vocabulary_loads() {
    let folder = copy("tiny-st-old");
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let expected = expected().remove("tiny-st-old").unwrap();
    let found = embed(folder.path(), Precision::F32, &expected.texts, None);
    assert!(difference(&found, &expected.embedding) < F32_TOLERANCE);
}

/// A tokenizer that puts nothing around a text makes nothing of white space.
#[test]
fn a_text_without_tokens_is_refused() {
    let folder = copy("tiny-st-old");
    let file = folder.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    json["post_processor"] = Value::Null;
    std::fs::write(&file, json.to_string()).unwrap();
    for precision in [Precision::Int8, Precision::F32] {
        let config =
            Config { model: folder.path().display().to_string(), precision, ..Config::from_lookup(|_| None).unwrap() };
        let engine = Engine::new(config).unwrap();
        for texts in [vec![" "], vec!["hello", " \n ", "world"]] {
            let index = texts.len() / 2;
            let inputs = texts.into_iter().map(|t| Input::Text(t.into())).collect();
            let texts = EmbedInputs {
                model: None,
                inputs,
                prompt: None,
                truncation: Truncation::Error,
                field: "input",
                first_index: 0,
            };
            let error = engine.run(Embed { texts, normalize: true, dimensions: None }, Deadline::NONE).unwrap_err();
            assert!(error.kind == ErrorKind::Empty && error.message.contains(&format!("input[{index}]")), "{error:?}");
        }
    }
}

#[test]
fn a_header_survives_writing_and_reading() {
    let metadata = [
        ("a".to_string(), gguf::MetadataValue::Uint(7)),
        ("b".into(), gguf::MetadataValue::Strings(vec!["x".into(), "".into(), "é".into()])),
        ("c".into(), gguf::MetadataValue::Ints(vec![-1, 2])),
        ("d".into(), gguf::MetadataValue::Bool(true)),
        ("e".into(), gguf::MetadataValue::Float(0.5)),
        ("f".into(), gguf::MetadataValue::String("text".into())),
    ];
    let tensors = [("t".to_string(), TensorData::f32(vec![2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))];
    let mut bytes = vec![];
    gguf::write(&mut bytes, &metadata, &tensors).unwrap();
    let file = Gguf::parse(bytes.into()).unwrap();
    assert_eq!(file.integer("a").unwrap(), Some(7));
    assert_eq!(file.array("b").unwrap().unwrap().strings().unwrap(), ["x", "", "é"]);
    assert_eq!(file.array("c").unwrap().unwrap().integers().unwrap(), [-1, 2]);
    assert_eq!(file.boolean("d").unwrap(), Some(true));
    assert_eq!(file.float("e").unwrap(), Some(0.5));
    assert_eq!(file.string("f").unwrap(), Some("text"));
    assert!(file.string("a").is_err() && file.integer("z").unwrap().is_none());
    assert_eq!(file.tensors["t"].shape, [2, 3]);
}
