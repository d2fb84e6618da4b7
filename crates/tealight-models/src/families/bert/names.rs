//! Tensor names: Hugging Face's, and llama.cpp's, which the network uses.

/// Tensors outside the layers.
const EMBEDDING_NAMES: [(&str, &str); 4] = [
    ("embeddings.word_embeddings.weight", "token_embd.weight"),
    ("embeddings.position_embeddings.weight", "position_embd.weight"),
    ("embeddings.token_type_embeddings.weight", "token_types.weight"),
    ("embeddings.LayerNorm", "token_embd_norm"),
];

/// Modules of a layer.
const LAYER_NAMES: [(&str, &str); 8] = [
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
];

/// llama.cpp's name for one of Hugging Face's tensors; `None` for tensors that embeddings do not need.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    // Files that were converted from TensorFlow have its names for the parameters of LayerNorm.
    let name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
    if let Some(rest) = name.strip_prefix("encoder.layer.") {
        let (index, rest) = rest.split_once('.')?;
        let (module, parameter) = rest.rsplit_once('.')?;
        let gguf_module = LAYER_NAMES.iter().find(|(hf_module, _)| *hf_module == module)?.1;
        return Some(format!("blk.{index}.{gguf_module}.{parameter}"));
    }
    EMBEDDING_NAMES.iter().find_map(|(hf, gguf)| Some(format!("{gguf}{}", name.strip_prefix(hf)?)))
}
