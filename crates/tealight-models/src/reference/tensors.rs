//! The tensors of a model file for candle-nn's `VarBuilder`.

use crate::families::encoder::EncoderFamily;
use crate::int8::{LayerLoader, LinearKind};
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use tealight_core::{Error, Result};

/// Translates Hugging Face's names, by which candle's networks ask for tensors, and takes matrices apart that a file has stacked or
/// packed.
pub(super) struct FileTensors<'a> {
    pub loader: LayerLoader<'a>,
    /// The family whose names the network uses.
    pub names: &'static EncoderFamily,
}

impl FileTensors<'_> {
    fn values(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let missing = || Error::invalid_model(format!("the network in float32 needs the tensor {name:?}"));
        let gguf_name = self.names.gguf_name(name).ok_or_else(missing)?;
        let values = self.named_values(&gguf_name, len)?;
        if values.len() != len {
            return Err(Error::invalid_model(format!(
                "tensor {gguf_name:?} has {} values; the network in float32 expects {len}",
                values.len()
            )));
        }
        Ok(values)
    }

    fn named_values(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let (spec, weights) = (self.loader.spec, self.loader.weights);
        if name == "token_embd.weight" {
            let (rows, d) = (spec.vocab_size, spec.hidden_size);
            let table = weights.embedding_table(name, rows, d)?;
            let mut values = vec![0.0; rows * d];
            values.chunks_exact_mut(d).enumerate().try_for_each(|(i, row)| table.read_row(i, row))?;
            return Ok(values);
        }
        if let Some(part) = self.part_of_product(name)? {
            return Ok(part);
        }
        if spec.embeddings.token_types == 0 && name.starts_with("token_types.") && len == spec.hidden_size {
            // DistilBERT is BERT without token types.
            return Ok(vec![0.0; len]);
        }
        weights.floats(name, weights.shape(name)?)
    }

    /// The rows of a product that a tensor has, or their biases; `None` for other tensors.
    fn part_of_product(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let parts = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let Some((layer, rest)) = parts.filter(|(_, rest)| LayerLoader::is_part_of_product(rest)) else {
            return Ok(None);
        };
        let (Ok(layer), Some((module, parameter))) = (layer.parse(), rest.rsplit_once('.')) else { return Ok(None) };
        let a = &self.loader.spec.attention;
        let (q, kv) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
        let inner = self.loader.spec.feed_forward.intermediate_size;
        let (kind, rows) = match module {
            "attn_q" => (LinearKind::Qkv, 0..q),
            "attn_k" => (LinearKind::Qkv, q..q + kv),
            "attn_v" => (LinearKind::Qkv, q + kv..q + 2 * kv),
            "attn_qkv" => (LinearKind::Qkv, 0..q + 2 * kv),
            "attn_output" => (LinearKind::AttentionOutput, 0..self.loader.spec.hidden_size),
            "ffn_gate" => (LinearKind::Up, 0..inner),
            "ffn_up" if self.loader.spec.feed_forward.gated => (LinearKind::Up, inner..2 * inner),
            "ffn_up" => (LinearKind::Up, 0..inner),
            "ffn_gate_up" => (LinearKind::Up, 0..2 * inner),
            "ffn_down" => (LinearKind::Down, 0..self.loader.spec.hidden_size),
            _ => return Ok(None),
        };
        let matrix = self.loader.matrix(layer, kind, None)?;
        let k = matrix.columns.size();
        Ok(Some(if parameter == "bias" {
            matrix.bias[rows].to_vec()
        } else {
            matrix.weight[rows.start * k..rows.end * k].to_vec()
        }))
    }
}

impl SimpleBackend for FileTensors<'_> {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let values = self.values(name, shape.elem_count()).map_err(|e| candle_core::Error::Msg(e.message))?;
        Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("the network in float32 asks for {name:?} without a shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        let gguf_name = self.names.gguf_name(name);
        gguf_name.is_some_and(|name| self.loader.weights.contains(&name) || LayerLoader::is_part_of_product(&name))
    }
}
