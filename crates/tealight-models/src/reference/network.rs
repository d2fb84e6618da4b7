//! The networks of candle-transformers as encoders.

use super::config::{config, global_every};
use super::tensors::FileTensors;
use crate::batch::TokenBatch;
use crate::families::encoder::EncoderFamily;
use crate::formats::weights::Weights;
use crate::int8::LayerLoader;
use crate::layers::Activation;
use crate::spec::{EncoderSpec, NormKind, PositionBias, QkNorm};
use crate::text_encoder::SpecifiedEncoder;
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, debertav2, jina_bert, modernbert, nomic_bert, qwen3, xlm_roberta};
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// candle computes rotations for all positions when it loads a model.
const MAX_ROPE_TOKENS: usize = 1 << 15;
/// candle computes ALiBi for all pairs of positions when it loads a model.
const MAX_ALIBI_TOKENS: usize = 2048;

/// An encoder in float32. Without learned positions, texts are limited to 32,768 tokens, with ALiBi to 2,048.
pub struct ReferenceEncoder {
    spec: EncoderSpec,
    network: Network,
}

enum Network {
    Bert(bert::BertModel),
    Roberta(xlm_roberta::XLMRobertaModel),
    JinaBert(jina_bert::BertModel),
    NomicBert(nomic_bert::NomicBertModel),
    ModernBert(modernbert::ModernBert),
    Deberta(Box<debertav2::DebertaV2Model>),
    Qwen3(qwen3::Model),
}

impl std::fmt::Debug for ReferenceEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReferenceEncoder").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl ReferenceEncoder {
    /// Builds the network from the tensors of a file.
    ///
    /// # Errors
    /// A tensor is missing or misshapen, or candle-transformers has no network for the model.
    pub(crate) fn new(family: &'static EncoderFamily, mut spec: EncoderSpec, weights: &Weights) -> Result<Self> {
        check_supported(family.name, &spec)?;
        if spec.embeddings.positions.is_none() {
            let is_alibi = spec.attention.position_bias == PositionBias::Alibi;
            spec.max_tokens = spec.max_tokens.min(if is_alibi { MAX_ALIBI_TOKENS } else { MAX_ROPE_TOKENS });
        }
        let network = Network::new(family, &spec, weights)?;
        Ok(Self { spec, network })
    }
}

/// Fails if candle's network lacks a part of the encoder.
fn check_supported(family: &str, spec: &EncoderSpec) -> Result<()> {
    let (a, f) = (&spec.attention, &spec.feed_forward);
    let activations: &[Activation] = match family {
        "modern-bert" | "jina-bert-v2" => &[Activation::Gelu],
        "nomic-bert" => &[Activation::Silu],
        "deberta-v2" => &[Activation::Gelu, Activation::Relu],
        "bert" | "distilbert" => &[Activation::Gelu, Activation::GeluTanh, Activation::Relu],
        _ => &[Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu],
    };
    let windows: Vec<_> = spec.layers.iter().filter_map(|l| l.window).collect();
    let every = global_every(spec);
    let has_irregular_windows = spec.layers.iter().enumerate().any(|(i, l)| l.window.is_none() != (i % every == 0))
        || windows.iter().any(|w| *w != windows[0]);
    let mut ropes = spec.layers.iter().filter_map(|l| l.rope.as_ref());
    let problems = [
        ("this activation", !activations.contains(&f.activation)),
        ("biases", family == "modern-bert" && (a.qkv_bias || f.up_bias || spec.norm.kind == NormKind::LayerNorm)),
        ("these windows", !windows.is_empty() && has_irregular_windows),
        (
            "a scaled or partial rotation",
            ropes.any(|r| r.linear_scale != 1.0 || !r.freq_factors.is_empty() || r.rotary_dim != a.head_dim),
        ),
        ("experts", spec.layers.iter().any(|l| l.experts.is_some())),
    ];
    match problems.iter().find(|(_, is_present)| *is_present) {
        Some((problem, _)) => Err(Error::invalid_model(format!(
            "candle-transformers has no {family:?} network with {problem} in float32; use int8"
        ))),
        None => Ok(()),
    }
}

impl Network {
    fn new(family: &'static EncoderFamily, spec: &EncoderSpec, weights: &Weights) -> Result<Self> {
        let names = if family.name == "distilbert" { EncoderFamily::of_gguf("bert")? } else { family };
        let backend = FileTensors { loader: LayerLoader { spec, weights }, names };
        let vb = VarBuilder::from_backend(Box::new(backend), DType::F32, Device::Cpu);
        Ok(match family.name {
            "bert" | "distilbert" => {
                let mut config: bert::Config = config(spec)?;
                if spec.feed_forward.activation == Activation::GeluTanh {
                    // candle-nn has another name for it.
                    config.hidden_act = bert::HiddenAct::GeluApproximate;
                }
                Network::Bert(bert::BertModel::load(vb, &config)?)
            }
            "roberta" => Network::Roberta(xlm_roberta::XLMRobertaModel::new(&config(spec)?, vb)?),
            "jina-bert-v2" if spec.attention.qk_norm == QkNorm::None => {
                let mut config: jina_bert::Config = config(spec)?;
                config.position_embedding_type = jina_bert::PositionEmbeddingType::Alibi;
                Network::JinaBert(jina_bert::BertModel::new(vb, &config)?)
            }
            "nomic-bert" if spec.feed_forward.gated => {
                Network::NomicBert(nomic_bert::NomicBertModel::load(vb, &config(spec)?)?)
            }
            "modern-bert" => Network::ModernBert(modernbert::ModernBert::load(vb, &config(spec)?)?),
            "deberta-v2" => Network::Deberta(Box::new(debertav2::DebertaV2Model::load(vb, &config(spec)?)?)),
            "qwen3" => Network::Qwen3(qwen3::Model::new(&config(spec)?, vb)?),
            other => {
                return Err(Error::invalid_model(format!(
                    "{other:?} models have no network in float32, because candle-transformers has none for them; use int8"
                )));
            }
        })
    }

    /// The hidden states `[1, T, D]` of a text.
    fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let (types, mask) = (ids.zeros_like()?, ids.ones_like()?);
        match self {
            Network::Bert(model) => model.forward(ids, &types, None),
            Network::Roberta(model) => model.forward(ids, &mask, &types, None, None, None),
            Network::JinaBert(model) => model.forward(ids),
            Network::NomicBert(model) => model.forward(ids, None, None),
            Network::ModernBert(model) => model.forward(ids, &mask),
            Network::Deberta(model) => model.forward(ids, None, None),
            // A copy, because the network keeps keys and values; the weights are shared.
            Network::Qwen3(model) => model.clone().forward(ids, 0),
        }
    }
}

impl SpecifiedEncoder for ReferenceEncoder {
    fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    fn hidden_states(&self, _: &CpuContext, batch: &TokenBatch) -> Result<Vec<f32>> {
        let mut hidden_states = vec![];
        for text in batch.cu_seqlens.windows(2) {
            let ids = Tensor::new(&batch.ids[text[0]..text[1]], &Device::Cpu)?.unsqueeze(0)?;
            hidden_states.extend(self.network.forward(&ids)?.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(hidden_states)
    }
}
