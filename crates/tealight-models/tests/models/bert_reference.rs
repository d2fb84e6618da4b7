//! BERT models of every format against an independent implementation in Python (tests/fixtures/make_models.py,
//! tests/goldens/make.py).

use crate::support::{
    F32_TOLERANCE, INT8_COSINE, bert_fixtures, copy_folder, cpu, embed, expected, load, max_difference, min_cosine,
    read_json, root, tokenize,
};
use tealight_models::formats::gguf::{self, Gguf};
use tealight_models::formats::tensor::TensorData;
use tealight_models::sentence_transformers::pool;
use tealight_models::tokenizer::TruncationDirection;
use tealight_models::{Pooling, Precision, TokenBatch};

#[cfg(feature = "reference")]
#[test]
fn embeddings_of_each_format_equal_reference() {
    for (name, expected) in expected() {
        let path = bert_fixtures().join(&name);
        let found = embed(&load(&path, Precision::F32).unwrap(), &expected.texts);
        let difference = max_difference(&found, &expected.embedding);
        println!("{name}: {difference:e}");
        assert!(difference < F32_TOLERANCE, "{name} differs by {difference}");
        let cosine = min_cosine(&embed(&load(&path, Precision::Int8).unwrap(), &expected.texts), &expected.embedding);
        assert!(cosine > INT8_COSINE, "{name}: cosine {cosine}");
    }
}

#[test]
fn token_ids_of_each_format_equal_tokenizers_package() {
    for (name, expected) in expected() {
        let model = load(&bert_fixtures().join(&name), Precision::Int8).unwrap();
        for (text, ids) in expected.texts.iter().zip(&expected.ids) {
            assert_eq!(&tokenize(&model, text), ids, "{name}: {text:?}");
        }
    }
}

#[cfg(feature = "reference")]
#[test]
fn each_pooling_equals_reference() {
    let expected = expected().remove("tiny-st-old").unwrap();
    let model = load(&bert_fixtures().join("tiny-st-old"), Precision::F32).unwrap();
    let texts = model.token_embeddings(&cpu(), &TokenBatch::new(expected.ids.iter().map(Vec::as_slice))).unwrap();
    let all = expected.pooled.unwrap();
    assert_eq!(all.len(), Pooling::ALL.len());
    for (name, vectors) in all {
        let pooling = Pooling::from_name(&name).unwrap();
        let found: Vec<_> = texts.iter().map(|rows| pool(rows, model.hidden_size(), pooling)).collect();
        // Not normalized, so values are larger.
        assert!(max_difference(&found, &vectors) < 10.0 * F32_TOLERANCE, "{name}");
    }
}

#[cfg(feature = "reference")]
#[test]
fn folder_without_tokenizer_json_loads_vocab_txt() {
    let folder = copy_folder("tiny-st-old");
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let expected = expected().remove("tiny-st-old").unwrap();
    let found = embed(&load(folder.path(), Precision::F32).unwrap(), &expected.texts);
    assert!(max_difference(&found, &expected.embedding) < F32_TOLERANCE);
}

#[test]
fn gguf_written_and_parsed_is_unchanged() {
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

fn golden<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(read_json(&root().join("tests/goldens").join(name))).unwrap()
}

#[test]
fn token_ids_of_default_model_equal_tokenizers_package() {
    let (texts, expected): (Vec<String>, Vec<Vec<u32>>) = (golden("texts.json"), golden("tokens.json"));
    let model = load(&root().join("models/all-MiniLM-L6-v2.gguf"), Precision::Int8).unwrap();
    for (text, expected) in texts.iter().zip(expected) {
        let ids = model.tokenizer.add_special_tokens(&model.tokenizer.encode(text).unwrap());
        assert_eq!(model.tokenizer.truncate(&ids, 256, TruncationDirection::Right), expected, "{text:?}");
    }
}

#[test]
fn batch_of_texts_has_cumulative_lengths() {
    let batch = TokenBatch::new([&[1u32, 2, 3][..], &[4][..]]);
    assert_eq!((batch.ids, batch.cu_seqlens), (vec![1, 2, 3, 4], vec![0, 3, 4]));
}
