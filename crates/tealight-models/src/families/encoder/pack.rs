//! Writes a model as one GGUF file that is used in place: quantized, in the layout of the kernels, with tokenizer and pipeline.

use super::model_files::{ModelFiles, SPEC_KEY};
use super::smooth_quant::{ActivationRanges, smoothing_factors};
use crate::batch::TokenBatch;
use crate::formats::embedding_table::EmbeddingTable;
use crate::formats::gguf::{self, MetadataValue};
use crate::formats::packed_file::{PackMetadata, general_metadata, sha256};
use crate::formats::tensor::{Dtype, TensorData};
use crate::formats::weights::{Weights, packed_name};
use crate::int8::{Int8Encoder, LayerLoader, LinearKind};
use crate::spec::EncoderSpec;
use crate::tokenizer::TruncationDirection;
use std::path::Path;
use tealight_core::files::write_atomic;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// The default calibration texts: English prose of many kinds, one text per line.
const CALIBRATION: &str = include_str!("../../calibration.txt");
/// Calibration texts per forward pass, which bounds memory.
const TEXTS_PER_BATCH: usize = 64;
const TOKEN_EMBEDDINGS: &str = "token_embd.weight";

/// Weights along K that share a scale in a packed file.
///
/// The outputs of attention differ little between channels, so all 384 of all-MiniLM share a scale; `tests/check_accuracy` measures
/// the result.
fn group_size(kind: LinearKind) -> usize {
    match kind {
        LinearKind::AttentionOutput => 384,
        LinearKind::Qkv | LinearKind::Up | LinearKind::Down => 192,
    }
}

/// Packs a model folder or a GGUF file into `output`: matrices and token embeddings in int8, the rest in f32. SmoothQuant scales
/// the channels by the activations of the texts in `calibration`, one per line, or of the default texts.
///
/// Equal input gives equal bytes.
///
/// # Errors
/// The model cannot be loaded, is packed already or cannot be packed, or the file cannot be written.
pub(crate) fn pack(
    cpu: &CpuContext,
    source: &Path,
    metadata: &PackMetadata,
    calibration: Option<&str>,
    output: &Path,
) -> Result<()> {
    let packed = pack_in_memory(cpu, source, metadata, calibration.unwrap_or(CALIBRATION));
    let (metadata, tensors) = packed.map_err(|e| e.with_context(format_args!("model {}", source.display())))?;
    write_atomic(output, |out| gguf::write(out, &metadata, &tensors))
}

type Metadata = Vec<(String, MetadataValue)>;
type Tensors = Vec<(String, TensorData)>;

fn pack_in_memory(
    cpu: &CpuContext,
    source: &Path,
    given: &PackMetadata,
    calibration: &str,
) -> Result<(Metadata, Tensors)> {
    let files = ModelFiles::open(source)?;
    let ModelFiles { family, spec, weights, info, .. } = &files;
    if weights.packed(TOKEN_EMBEDDINGS).is_some() {
        return Err(Error::invalid_model("the model is packed already; pack its source instead"));
    }
    let pack_metadata = PackMetadata {
        name: given.name.clone().or(info.name.clone()),
        license: given.license.clone().or(info.license.clone()),
        source: given.source.clone().or(info.source.clone()),
    };
    let loader = LayerLoader { spec, weights };
    let encoder = Int8Encoder::new(cpu, spec.clone(), weights)?;
    let ranges = ActivationRanges::measure(cpu, &encoder, &loader, &calibration_batches(&files, calibration)?)?;
    let mut tensors = packed_tensors(&loader, &ranges)?;
    tensors.extend(files.pipeline.tensors());
    let mut metadata = general_metadata(family.name, &pack_metadata, &sha256(&files.weights_path)?);
    metadata.extend(spec_metadata(spec, family.name)?);
    metadata.extend(files.pipeline.gguf_metadata(family.name));
    metadata.extend(files.tokenizer_spec.gguf_metadata());
    Ok((metadata, tensors))
}

/// The description of the network, and llama.cpp's keys for its sizes.
fn spec_metadata(spec: &EncoderSpec, architecture: &str) -> Result<Metadata> {
    let sizes = [
        ("block_count", spec.layers.len()),
        ("context_length", spec.max_tokens),
        ("embedding_length", spec.hidden_size),
        ("feed_forward_length", spec.feed_forward.intermediate_size),
        ("attention.head_count", spec.attention.heads),
    ];
    let key = |name: &str| format!("{architecture}.{name}");
    let mut metadata: Metadata =
        sizes.into_iter().map(|(name, n)| (key(name), MetadataValue::Uint(n as u32))).collect();
    metadata.push((key("attention.layer_norm_epsilon"), MetadataValue::Float(spec.norm.eps)));
    metadata.push((key("attention.causal"), MetadataValue::Bool(spec.attention.causal)));
    let json = serde_json::to_string(spec).map_err(|e| Error::internal(format!("EncoderSpec as JSON: {e}")))?;
    metadata.push((SPEC_KEY.into(), MetadataValue::String(json)));
    Ok(metadata)
}

fn calibration_batches(files: &ModelFiles, calibration: &str) -> Result<Vec<TokenBatch>> {
    let limit = files.spec.max_tokens;
    let limit = files.pipeline.max_tokens.unwrap_or(limit).min(limit);
    let tokenizer = &files.tokenizer;
    let encode = |text: &str| {
        let ids = tokenizer.add_special_tokens(&tokenizer.encode(text)?);
        Ok(tokenizer.truncate(&ids, limit, TruncationDirection::Right))
    };
    let texts = calibration.lines().filter(|line| !line.trim().is_empty());
    let ids = texts.map(encode).collect::<Result<Vec<_>>>()?;
    if ids.is_empty() {
        return Err(Error::invalid_value("calibration", "calibration has no texts"));
    }
    Ok(ids.chunks(TEXTS_PER_BATCH).map(|ids| TokenBatch::new(ids.iter().map(Vec::as_slice))).collect())
}

/// The tensors of a packed file: the embeddings, then layer by layer.
fn packed_tensors(loader: &LayerLoader, ranges: &ActivationRanges) -> Result<Tensors> {
    let (spec, weights) = (loader.spec, loader.weights);
    let (d, rows) = (spec.hidden_size, spec.vocab_size);
    let table = EmbeddingTable::quantize(&weights.floats(TOKEN_EMBEDDINGS, &[rows, d])?, d);
    let shape = vec![rows, table.len() / rows];
    let mut tensors =
        vec![(packed_name(TOKEN_EMBEDDINGS), TensorData { shape, dtype: Dtype::Packed, data: table.into() })];
    tensors.extend(unpacked_tensors(weights, |name| !name.starts_with("blk.") && name != TOKEN_EMBEDDINGS)?);
    for (i, ranges) in ranges.0.iter().enumerate() {
        let prefix = format!("blk.{i}.");
        tensors.extend(unpacked_tensors(weights, |name| {
            name.strip_prefix(&prefix).is_some_and(|name| !LayerLoader::is_part_of_product(name))
        })?);
        for kind in LinearKind::ALL {
            for expert in loader.experts(i, kind) {
                let matrix = loader.matrix(i, kind, expert)?;
                let factors = smoothing_factors(&ranges[kind as usize], &matrix.weight);
                let packed = matrix.pack(Some(&factors), group_size(kind))?;
                let name = packed_name(&LayerLoader::packed_name(i, kind, expert));
                tensors.push((name, TensorData::from_bytes(packed.bytes().clone())));
            }
        }
    }
    Ok(tensors)
}

/// The tensors with these names in f32, sorted.
fn unpacked_tensors(weights: &Weights, is_included: impl Fn(&str) -> bool) -> Result<Tensors> {
    let mut names: Vec<_> = weights.names().filter(|name| is_included(name)).collect();
    names.sort_unstable();
    let tensor = |name: &str| Ok((name.to_string(), weights.f32_tensor(name, weights.shape(name)?)?));
    names.into_iter().map(tensor).collect()
}
