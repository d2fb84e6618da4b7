//! Writes a model as one GGUF file that is used in place: quantized, in the layout of the kernels, with tokenizer and pipeline.

use super::config::Config;
use super::layer_weights::LinearKind;
use super::model_files::ModelFiles;
use super::network::Bert;
use super::smooth_quant::{ActivationRanges, smoothing_factors};
use crate::batch::TokenBatch;
use crate::formats::embedding_table::EmbeddingTable;
use crate::formats::gguf::{self, MetadataValue};
use crate::formats::packed_file::{PackMetadata, general_metadata, sha256};
use crate::formats::tensor::{Dtype, TensorData};
use crate::formats::weights::{Precision, Weights, packed_name};
use crate::tokenizer::TruncationDirection;
use std::path::Path;
use tealight_core::files::write_atomic;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;
use tealight_kernels::int8::PackedRhs;

/// The default calibration texts: English prose of many kinds, one text per line.
const CALIBRATION: &str = include_str!("../../calibration.txt");
/// Calibration texts per forward pass, which bounds memory.
const TEXTS_PER_BATCH: usize = 64;

impl LinearKind {
    /// Weights along K that share a scale in a packed file.
    ///
    /// The outputs of attention differ little between channels, so all 384 of all-MiniLM share a scale; `tests/check_accuracy`
    /// measures the result.
    fn group_size(self) -> usize {
        match self {
            LinearKind::AttentionOutput => 384,
            LinearKind::Qkv | LinearKind::Up | LinearKind::Down => 192,
        }
    }
}

/// Packs a model folder or a GGUF file into `output`: matrices and token embeddings in int8, the rest in f32, tensors in the order
/// of use. SmoothQuant scales the channels by the activations of the texts in `calibration`, one per line, or of the default texts.
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
    let files = ModelFiles::open(source, Precision::F32)?;
    let ModelFiles { config, weights, info, .. } = &files;
    if weights.packed("token_embd.weight").is_some() {
        return Err(Error::invalid_model("the model is packed already; pack its source instead"));
    }
    let pack_metadata = PackMetadata {
        name: given.name.clone().or(info.name.clone()),
        license: given.license.clone().or(info.license.clone()),
        source: given.source.clone().or(info.source.clone()),
    };
    let bert = Bert::new(cpu, config.clone(), weights)?;
    let ranges = bert.activation_ranges(cpu, &calibration_batches(&files, calibration)?)?;
    let mut tensors = packed_tensors(config, weights, &ranges)?;
    tensors.extend(files.pipeline.tensors());
    let mut metadata = general_metadata(&info.architecture, &pack_metadata, &sha256(&files.weights_path)?);
    metadata.extend(config.gguf_metadata());
    metadata.extend(files.pipeline.gguf_metadata(&info.architecture));
    metadata.extend(files.tokenizer_spec.gguf_metadata());
    Ok((metadata, tensors))
}

fn calibration_batches(files: &ModelFiles, calibration: &str) -> Result<Vec<TokenBatch>> {
    let limit = files.config.max_position_embeddings;
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

/// The tensors of a packed file, in the order of use.
fn packed_tensors(config: &Config, weights: &Weights, ranges: &ActivationRanges) -> Result<Tensors> {
    let d = config.hidden_size;
    let mut tensors = vec![];
    let mut add = |name: &str, tensor: TensorData| tensors.push((name.to_string(), tensor));
    let floats = |name: &str, shape: &[usize]| weights.f32_tensor(name, shape);
    let table = EmbeddingTable::quantize(&weights.floats("token_embd.weight", &[config.vocab_size, d])?, d);
    let shape = vec![config.vocab_size, table.len() / config.vocab_size];
    add(&packed_name("token_embd.weight"), TensorData { shape, dtype: Dtype::Packed, data: table.into() });
    add("position_embd.weight", floats("position_embd.weight", &[config.max_position_embeddings, d])?);
    add("token_types.weight", floats("token_types.weight", &[config.type_vocab_size, d])?);
    let norm = |name: &str| {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        Ok::<_, Error>([(weight.clone(), floats(&weight, &[d])?), (bias.clone(), floats(&bias, &[d])?)])
    };
    norm("token_embd_norm")?.into_iter().for_each(|(name, tensor)| add(&name, tensor));
    for (i, ranges) in ranges.0.iter().enumerate() {
        for kind in LinearKind::ALL {
            let (matrix, bias) = kind.dequantized(i, config, weights)?;
            let factors = smoothing_factors(&ranges[kind as usize], &matrix);
            let packed = PackedRhs::pack(&matrix, &bias, &factors, kind.group_size())?;
            add(&packed_name(&kind.tensor_name(i)), TensorData::from_bytes(packed.bytes().clone()));
            let following = match kind {
                LinearKind::AttentionOutput => norm(&format!("blk.{i}.attn_output_norm"))?,
                LinearKind::Down => norm(&format!("blk.{i}.layer_output_norm"))?,
                LinearKind::Qkv | LinearKind::Up => continue,
            };
            following.into_iter().for_each(|(name, tensor)| add(&name, tensor));
        }
    }
    Ok(tensors)
}
