//! The network: token embeddings, decoder layers, and the projection to logits.

use super::config::Config;
use super::decoder_layer::{DecoderLayer, Partition, Scratch, par_gemm};
use super::kv_cache::KvCache;
use super::quantized_matrix::QuantizedMatrix;
use super::tensor_loader::TensorLoader;
use tealight_core::{Error, Result};
use tealight_kernels::int8::Epilogue;
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::{CpuContext, rowwise};

/// Tokens that pass through the layers at a time. They are to reuse each weight and to stay in the CPU's caches: 128 hidden states
/// of 576 values (SmolLM2-135M) are 288 KiB. No comparison with other values is recorded.
const CHUNK_TOKENS: usize = 128;

/// The weights of a model.
#[derive(Debug)]
pub(super) struct Network {
    config: Config,
    embed_tokens: QuantizedMatrix,
    layers: Vec<DecoderLayer>,
    norm: Vec<f32>,
    /// `None` with tied embeddings: the token embeddings are then also the output matrix.
    lm_head: Option<QuantizedMatrix>,
}

impl Network {
    pub(super) fn new(cpu: &CpuContext, config: &Config, loader: &TensorLoader) -> Result<Self> {
        let (d, vocab_size) = (config.hidden_size, config.vocab_size);
        // A damaged layer count is found before many layers are packed.
        let last = format!("blk.{}.attn_norm", config.num_hidden_layers - 1);
        if !loader.contains(&last) {
            return Err(Error::invalid_model(format!(
                "tensor \"{last}.weight\" is missing; the model has {} layers",
                config.num_hidden_layers
            )));
        }
        let table = |name: &'static str| loader.matrix(name, &[(name, vocab_size)], d, d);
        let embed_tokens = table("token_embd")?;
        let indices: Vec<_> = (0..config.num_hidden_layers).collect();
        let layers = cpu.par_map(&indices, |i| DecoderLayer::new(*i, config, loader));
        Ok(Self {
            embed_tokens,
            layers: layers.into_iter().collect::<Result<_>>()?,
            norm: loader.floats("output_norm", d)?,
            lm_head: loader.contains("output").then(|| table("output")).transpose()?,
            config: config.clone(),
        })
    }

    /// Bytes of weights that are read for each generated token.
    pub(super) fn weight_bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(|l| [&l.qkv_proj, &l.o_proj, &l.gate_up_proj, &l.down_proj]);
        layers.chain([self.output_matrix()]).map(|matrix| matrix.bytes().len()).sum()
    }

    /// Number of weights in the matrix products for a hidden state, without the output matrix.
    pub(super) fn layer_weight_count(&self) -> usize {
        let Config { hidden_size: d, num_attention_heads: heads, num_key_value_heads: kv_heads, .. } = self.config;
        let attention = 2 * heads * self.config.head_dim + 2 * kv_heads * self.config.head_dim;
        self.config.num_hidden_layers * d * (attention + 3 * self.config.intermediate_size)
    }

    fn output_matrix(&self) -> &QuantizedMatrix {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// Runs tokens that follow those in `kv_cache`, and appends their keys and values. Calls `f(first, hidden_states)` for some
    /// tokens at a time, with the index of the first of them and their normalized hidden states `[n, D]`.
    pub(super) fn forward(
        &self,
        cpu: &CpuContext,
        kv_cache: &mut KvCache,
        tokens: &[u32],
        scratch: &mut Scratch,
        mut f: impl FnMut(usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let d = self.config.hidden_size;
        scratch.resize(cpu);
        for (i, chunk) in tokens.chunks(CHUNK_TOKENS).enumerate() {
            scratch.x.resize(chunk.len() * d, 0.0);
            for (id, x) in chunk.iter().zip(scratch.x.chunks_exact_mut(d)) {
                self.embed_tokens.dequantize_row(*id as usize, x);
            }
            let position = kv_cache.tokens;
            self.config.rope.cos_sin(position..position + chunk.len(), &mut scratch.cos_sin);
            let partition = Partition::new(cpu, chunk.len());
            for (layer, caches) in self.layers.iter().zip(&mut kv_cache.layers) {
                layer.forward(&partition, &self.config, caches, position, scratch);
            }
            kv_cache.tokens += chunk.len();
            rowwise::rms_norm(cpu.isa, &mut scratch.x, &self.norm, self.config.rms_norm_eps);
            f(i * CHUNK_TOKENS, &mut scratch.x)?;
        }
        Ok(())
    }

    /// The logits `[vocab_size]` of a hidden state from [`Network::forward`].
    pub(super) fn logits(&self, cpu: &CpuContext, hidden_state: &[f32], logits: &mut Vec<f32>) {
        let matrix = self.output_matrix();
        let mut quantized = QuantizedRows::default();
        matrix.quantize(cpu.isa, hidden_state, &mut quantized);
        logits.resize(matrix.n(), 0.0);
        par_gemm(cpu, &quantized, matrix, Epilogue::Store, logits);
        logits.truncate(self.config.vocab_size);
    }
}
