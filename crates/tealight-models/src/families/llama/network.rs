//! The network: token embeddings, decoder layers, and the projection to logits.

use super::config::Config;
use super::decoder_layer::{DecoderLayer, Partition, Scratch, par_gemm};
use super::kv_cache::KvCache;
use super::quantized_matrix::{MatrixSpec, QuantizedMatrix};
use crate::formats::tensor_loader::TensorLoader;
use tealight_core::{Error, Result};
use tealight_kernels::int8::Epilogue;
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::{CpuContext, rowwise};

/// Tokens that pass through the layers at a time. They are to reuse each weight and to stay in the CPU's caches: 128 hidden states
/// of 576 values (SmolLM2-135M) are 288 KiB. No comparison with other values is recorded.
const CHUNK_TOKENS: usize = 128;

/// The tensors of [`Network::embed_tokens`] and [`Network::lm_head`].
pub(super) const EMBED_TOKENS: &str = "token_embd";
const LM_HEAD: &str = "output";

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
        // A damaged layer count is found before many layers are packed.
        let last = format!("blk.{}.attn_norm", config.num_hidden_layers - 1);
        if !loader.contains(&last) {
            return Err(Error::invalid_model(format!(
                "tensor \"{last}.weight\" is missing; the model has {} layers",
                config.num_hidden_layers
            )));
        }
        let embed_tokens = loader.matrix(&token_table(EMBED_TOKENS, config))?;
        let indices: Vec<_> = (0..config.num_hidden_layers).collect();
        let layers = cpu.par_map(&indices, |i| DecoderLayer::new(*i, config, loader));
        Ok(Self {
            embed_tokens,
            layers: layers.into_iter().collect::<Result<_>>()?,
            norm: loader.norm_weight("output_norm", config.hidden_size)?,
            lm_head: loader.contains(LM_HEAD).then(|| loader.matrix(&token_table(LM_HEAD, config))).transpose()?,
            config: config.clone(),
        })
    }

    /// Bytes of all matrices of the network that [`Network::new`] returns.
    pub(super) fn matrix_bytes(config: &Config, loader: &TensorLoader) -> u64 {
        let layers = (0..config.num_hidden_layers).flat_map(|i| DecoderLayer::matrix_specs(i, config));
        let tables = [EMBED_TOKENS, LM_HEAD].map(|name| token_table(name, config));
        layers.chain(tables).map(|spec| loader.matrix_bytes(&spec) as u64).sum()
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
            rowwise::rms_norm(cpu.isa, &mut scratch.x, self.norm.len(), &self.norm, self.config.rms_norm_eps);
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

/// A matrix with a row of D values for each token.
fn token_table(name: &str, config: &Config) -> MatrixSpec {
    MatrixSpec::new("", name, &[(name, config.vocab_size)], config.hidden_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tensor::{Dtype, TensorData, tensor_bytes};
    use crate::formats::weights::Weights;
    use crate::layers::{Pairing, Rope};
    use candle_core::quantized::GgmlDType;
    use std::collections::HashMap;
    use tealight_kernels::Isa;

    fn config(intermediate_size: usize) -> Config {
        let rope = Rope {
            pairing: Pairing::Interleaved,
            rotary_dim: 64,
            rope_theta: 10_000.0,
            linear_scale: 1.0,
            freq_factors: vec![],
        };
        Config {
            hidden_size: 256,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 64,
            intermediate_size,
            vocab_size: 40,
            max_position_embeddings: 16,
            rms_norm_eps: 1e-5,
            rope,
        }
    }

    /// A model whose weights are zeros; `dtype` returns the encoding of a matrix by its name in a layer.
    fn tensors(config: &Config, dtype: impl Fn(&str) -> GgmlDType) -> HashMap<String, TensorData> {
        let mut tensors = HashMap::new();
        let mut insert = |prefix: &str, name: &str, shape: &[usize]| {
            let dtype = Dtype::Ggml(if shape.len() == 1 { GgmlDType::F32 } else { dtype(name) });
            let data = vec![0; tensor_bytes(shape, dtype).unwrap()].into();
            tensors.insert(format!("{prefix}{name}.weight"), TensorData { shape: shape.to_vec(), dtype, data });
        };
        let (d, i, kv_dim) =
            (config.hidden_size, config.intermediate_size, config.num_key_value_heads * config.head_dim);
        for layer in 0..config.num_hidden_layers {
            let prefix = format!("blk.{layer}.");
            for name in ["attn_norm", "ffn_norm"] {
                insert(&prefix, name, &[d]);
            }
            for (name, n, k) in [
                ("attn_q", d, d),
                ("attn_k", kv_dim, d),
                ("attn_v", kv_dim, d),
                ("attn_output", d, d),
                ("ffn_gate", i, d),
                ("ffn_up", i, d),
                ("ffn_down", d, i),
            ] {
                insert(&prefix, name, &[n, k]);
            }
        }
        insert("", "token_embd", &[config.vocab_size, d]);
        insert("", "output", &[config.vocab_size, d]);
        insert("", "output_norm", &[d]);
        tensors
    }

    fn assert_matrix_bytes(config: &Config, tensors: HashMap<String, TensorData>, case: &str) {
        let cpu = CpuContext::new(Isa::detect(), 1);
        let assert_equal = |loader: &TensorLoader| {
            let network = Network::new(&cpu, config, loader).unwrap();
            let bytes = network.weight_bytes() + network.embed_tokens.bytes().len();
            assert_eq!(Network::matrix_bytes(config, loader), bytes as u64, "{case}");
        };
        let loader = TensorLoader::new(Weights::new(tensors), true);
        assert_equal(&loader);
        let packed = loader.into_tensors().into_iter().collect();
        assert_equal(&TensorLoader::new(Weights::new(packed), false));
    }

    #[test]
    fn matrix_bytes_equal_the_bytes_of_packed_matrices() {
        use GgmlDType::{F16, F32, Q4_0, Q4_1, Q4K, Q6K, Q8_0};
        for dtype in [F32, F16, Q8_0, Q6K, Q4_0, Q4_1, Q4K] {
            let config = config(512);
            assert_matrix_bytes(&config, tensors(&config, |_| dtype), &format!("{dtype:?}"));
        }
        // As in files with the name Q4_K_M: `attn_v` makes one int8 matrix of `attn_q`, `attn_k` and itself.
        let config_512 = config(512);
        let mixed = |name: &str| if ["attn_v", "ffn_down", "output"].contains(&name) { Q6K } else { Q4K };
        assert_matrix_bytes(&config_512, tensors(&config_512, mixed), "Q4_K_M");
        let config_200 = config(200);
        assert_matrix_bytes(&config_200, tensors(&config_200, |_| F16), "rows of 200 values");
    }

    #[test]
    fn matrix_bytes_of_missing_tensors_are_zero() {
        let config = config(512);
        let loader = TensorLoader::new(Weights::default(), false);
        assert_eq!(Network::matrix_bytes(&config, &loader), 0);
    }
}
