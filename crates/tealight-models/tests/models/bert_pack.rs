//! Packed BERT models.

use crate::bert_damaged::{assert_rejected, load_bytes};
use crate::support::{INT8_COSINE, bert_fixtures, cpu, embed, expected, load, min_cosine};
use std::path::{Path, PathBuf};
use tealight_core::ErrorKind;
use tealight_core::mmap::map_file;
use tealight_models::formats::gguf::Gguf;
use tealight_models::pack::{PackMetadata, pack};
use tealight_models::{Precision, TokenBatch};

/// Packs a fixture into `folder`.
fn packed(source: &str, folder: &Path) -> PathBuf {
    let path = folder.join(format!("{source}.gguf"));
    let metadata = PackMetadata { name: Some(source.into()), license: Some("MIT".into()), source: None };
    pack(&cpu(), &bert_fixtures().join(source), &metadata, None, &path).unwrap();
    path
}

#[test]
fn packed_model_equals_source() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tiny-st-old", "tiny-st-new", "tiny-bert-f32.gguf", "tiny-bert-q8_0.gguf", "tiny-bert-q4_k.gguf"] {
        let path = packed(name, folder.path());
        let first = std::fs::read(&path).unwrap();
        packed(name, folder.path());
        assert_eq!(std::fs::read(&path).unwrap(), first, "{name}: equal input, equal bytes");
        let (a, b) =
            (load(&bert_fixtures().join(name), Precision::Int8).unwrap(), load(&path, Precision::Int8).unwrap());
        assert_eq!(a.pipeline.prompts, b.pipeline.prompts);
        assert_eq!((a.pipeline.pooling, a.max_tokens()), (b.pipeline.pooling, b.max_tokens()));
        assert_eq!((b.info.name.as_deref(), b.info.license.as_deref()), (Some(name), Some("MIT")));
        let expected = expected().remove(name).unwrap();
        let precisions = [Precision::Int8, Precision::F32];
        for precision in &precisions[..1 + usize::from(cfg!(feature = "reference"))] {
            let found = embed(&load(&path, *precision).unwrap(), &expected.texts);
            let cosine = min_cosine(&found, &expected.embedding);
            assert!(cosine > INT8_COSINE, "{name} in {}: cosine {cosine}", precision.as_str());
        }
    }
}

#[test]
fn pack_of_packed_model_or_without_calibration_texts_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = packed("tiny-st-old", folder.path());
    let error = pack(&cpu(), &path, &PackMetadata::default(), None, &folder.path().join("again.gguf")).unwrap_err();
    assert!(error.message.contains("packed already"), "{error}");
    let source = bert_fixtures().join("tiny-st-old");
    let error =
        pack(&cpu(), &source, &PackMetadata::default(), Some(" \n"), &folder.path().join("none.gguf")).unwrap_err();
    assert!(error.message.contains("calibration"), "{error}");
}

/// The header of a packed matrix is checked when the model is loaded.
#[test]
fn damaged_packed_matrix_is_rejected() {
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
            assert_rejected("packed header", &bytes, &[name.trim_end_matches(".packed")]);
        }
    }
}

/// The scales of a packed matrix are not checked when the model is loaded, but its embeddings are.
#[test]
fn embedding_with_nan_in_packed_scale_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = packed("tiny-st-old", folder.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let file = Gguf::parse(map_file(&path).unwrap()).unwrap();
    let data = &file.tensors["blk.0.ffn_up.packed"].data;
    let at = bytes.windows(data.len()).position(|w| w == data).unwrap();
    // After the header come 32 smoothing factors and the weights of 16 outputs, padded to 64 values each.
    let scale = at + 64 + 4 * 32 + 16 * 64;
    bytes[scale..scale + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let model = load_bytes(&bytes).unwrap();
    let ids = model.tokenizer.add_special_tokens(&[5, 6]);
    let error = model.sentence_embeddings(&cpu(), &TokenBatch::new([&ids[..]])).unwrap_err();
    assert!(error.kind == ErrorKind::ModelLoad && error.message.contains("damaged"), "{error}");
}
