#!/usr/bin/env python3
"""Convert a Whisper model from CTranslate2 to other formats, and write a small random model in the layout of large-v3 with the results
of tests/whisper_reference.py for it.

    whisper_formats.py FOLDER OUTPUT    FOLDER is a model in CTranslate2's format

OUTPUT/f16.bin, q5_0.bin    whisper.cpp's format
OUTPUT/hf                   Hugging Face folder with float16 safetensors
OUTPUT/candle               candle's GGUF, Q8_0, with its config and tokenizer
OUTPUT/large.bin            random model: 2 heads, 2 encoder layers, 1 decoder layer, 128 mel bins, 100 languages
OUTPUT/large-{mel,features,logits}.npy
"""

import json
import re
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, quants
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "goldens" / "whisper"))

from second_opinion import openai_names
from whisper_reference import FRAMES, Tokens, Whisper, dequantize, mel_filters, read_model

LAYER_NAMES = {
    "attn_ln": "self_attn_layer_norm", "attn.query": "self_attn.q_proj", "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj", "attn.out": "self_attn.out_proj", "cross_attn_ln": "encoder_attn_layer_norm",
    "cross_attn.query": "encoder_attn.q_proj", "cross_attn.key": "encoder_attn.k_proj",
    "cross_attn.value": "encoder_attn.v_proj", "cross_attn.out": "encoder_attn.out_proj",
    "mlp_ln": "final_layer_norm", "mlp.0": "fc1", "mlp.2": "fc2",
}
OTHER_NAMES = {"positional_embedding": "embed_positions.weight", "token_embedding.weight": "embed_tokens.weight",
          "ln.weight": "layer_norm.weight", "ln.bias": "layer_norm.bias", "ln_post.weight": "layer_norm.weight",
          "ln_post.bias": "layer_norm.bias"}


def huggingface_name(name):
    if found := re.fullmatch(r"(\w+)\.blocks\.(\d+)\.(.+)\.(\w+)", name):
        side, index, part, kind = found.groups()
        return f"model.{side}.layers.{index}.{LAYER_NAMES[part]}.{kind}"
    side, rest = name.split(".", 1)
    return f"model.{side}.{OTHER_NAMES.get(rest, rest)}"


def write_ggml(path, sizes, texts, tensors, ggml_type):
    """`sizes`: n_vocab; n_audio_ctx, n_audio_state, n_audio_head, n_audio_layer; the same for text; n_mels."""
    with open(path, "wb") as out:
        out.write(struct.pack("<12i", 0x67676D6C, *sizes, int(ggml_type)))
        out.write(struct.pack("<2i", sizes[-1], 201) + mel_filters(sizes[-1]).astype("<f4").tobytes())
        out.write(struct.pack("<i", len(texts)))
        for text in texts:
            out.write(struct.pack("<I", len(text)) + text)
        for name, tensor in tensors:
            # convolutions are not block-quantized
            tensor_type = Type.F32 if tensor.ndim == 1 or "positional" in name else ggml_type if tensor.ndim == 2 else Type.F16
            if "conv" in name and tensor.ndim == 1:
                tensor = tensor[:, None]
            data = quants.quantize(np.ascontiguousarray(tensor, np.float32), tensor_type).tobytes()
            out.write(struct.pack("<3i", tensor.ndim, len(name), int(tensor_type)))
            out.write(struct.pack(f"<{tensor.ndim}i", *tensor.shape[::-1]) + name.encode() + data)


def ggml_sizes(tensors):
    (n_state, n_mels), n_vocab = tensors["encoder/conv1/weight"].shape[:2], len(tensors["decoder/embeddings/weight"])
    layers = [sum(bool(re.fullmatch(rf"{side}/layer_\d+/ffn/layer_norm/beta", name)) for name in tensors) for side in ("encoder", "decoder")]
    heads = int(tensors["encoder/num_heads"])
    return n_vocab, 1500, n_state, heads, layers[0], 448, n_state, heads, layers[1], n_mels


def write_huggingface(folder, output, tensors, config):
    output.mkdir(exist_ok=True)
    save_file({huggingface_name(name): tensor.astype(np.float16) for name, tensor in tensors}, output / "model.safetensors")
    (output / "config.json").write_text(json.dumps({"model_type": "whisper", "encoder_attention_heads": config["heads"]}))
    generation_config = {"alignment_heads": config["alignment_heads"], "suppress_tokens": config["suppress_ids"]}
    (output / "generation_config.json").write_text(json.dumps(generation_config))
    shutil.copy(folder / "tokenizer.json", output)


def write_candle(folder, output, tensors, config):
    output.mkdir(exist_ok=True)
    writer = GGUFWriter(output / "model-tiny-en-q80.gguf", "")
    for name, tensor in tensors:
        kind = Type.Q8_0 if tensor.ndim == 2 and "positional" not in name else Type.F32
        data = quants.quantize(np.ascontiguousarray(tensor, np.float32), kind)
        writer.add_tensor(huggingface_name(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (output / "config-tiny-en.json").write_text(json.dumps({"encoder_attention_heads": config["heads"]}))
    shutil.copy(folder / "tokenizer.json", output / "tokenizer-tiny-en.json")


def random_large(n_vocab):
    """Random tensors by CTranslate2's names, with the scale of trained weights."""
    rng, n_state, ffn_dim, n_mels = np.random.default_rng(1), 128, 256, 128
    tensors = {}

    def linear(name, outputs, inputs, without_bias=()):
        bias = rng.normal(0, 0.1, outputs)
        for part in without_bias:
            bias[part * n_state:(part + 1) * n_state] = 0
        tensors.update({f"{name}/weight": rng.normal(0, inputs**-0.5, (outputs, inputs)), f"{name}/bias": bias})

    def norm(name):
        tensors.update({f"{name}/gamma": rng.normal(1, 0.1, n_state), f"{name}/beta": rng.normal(0, 0.1, n_state)})

    for name, inputs in (("conv1", n_mels), ("conv2", n_state)):
        tensors[f"encoder/{name}/weight"] = rng.normal(0, (3 * inputs) ** -0.5, (n_state, inputs, 3))
        tensors[f"encoder/{name}/bias"] = rng.normal(0, 0.1, n_state)
    for side, layers, length in (("encoder", 2, 1500), ("decoder", 1, 448)):
        tensors[f"{side}/position_encodings/encodings"] = rng.normal(0, 0.3, (length, n_state))
        norm(f"{side}/layer_norm")
        tensors[f"{side}/num_heads"] = np.array(2)
        for layer in (f"{side}/layer_{i}" for i in range(layers)):
            norm(f"{layer}/self_attention/layer_norm")
            linear(f"{layer}/self_attention/linear_0", 3 * n_state, n_state, without_bias=[1])
            linear(f"{layer}/self_attention/linear_1", n_state, n_state)
            if side == "decoder":
                norm(f"{layer}/attention/layer_norm")
                linear(f"{layer}/attention/linear_0", n_state, n_state)
                linear(f"{layer}/attention/linear_1", 2 * n_state, n_state, without_bias=[0])
                linear(f"{layer}/attention/linear_2", n_state, n_state)
            norm(f"{layer}/ffn/layer_norm")
            linear(f"{layer}/ffn/linear_0", ffn_dim, n_state)
            linear(f"{layer}/ffn/linear_1", n_state, ffn_dim)
    tensors["decoder/embeddings/weight"] = rng.normal(0, 0.3, (n_vocab, n_state))
    flags = {"activation": 3, "pre_norm": 1, "alibi": 0, "scale_embeddings": 0, "start_from_zero_embedding": 0}
    tensors.update({f"decoder/{name}": np.array(value) for name, value in flags.items()})
    return tensors


def write_large(output, texts):
    # 50,257 texts, 8 special tokens, 100 languages, 1,501 timestamps
    tensors = random_large(51_866)
    write_ggml(output / "large.bin", ggml_sizes(tensors), texts, openai_names(tensors), Type.F32)
    model = Whisper(tensors, {}, None, np.float64)
    mel = np.random.default_rng(2).normal(0, 0.5, (FRAMES, model.n_mels)).astype("<f4")
    features = model.encode(mel)
    # start of transcript, Cantonese (the last language), transcribe, 0.00 s, and text
    logits, _ = model.step(model.start(features), [50_258, 50_358, 50_360, 50_365, 400, 370])
    for name, rows in (("mel", mel), ("features", features), ("logits", logits)):
        np.save(output / f"large-{name}.npy", rows.astype("<f4"))


def main():
    folder, output = map(Path, sys.argv[1:])
    output.mkdir(parents=True, exist_ok=True)
    tensors, config = read_model(folder / "model.bin"), json.loads((folder / "config.json").read_text())
    sizes, texts = ggml_sizes(tensors), Tokens(folder / "tokenizer.json", len(tensors["decoder/embeddings/weight"])).bytes
    config = {"heads": sizes[3], **config}
    float32_tensors = {name: tensor for name, tensor in dequantize(tensors, np.float32)} | {"encoder/num_heads": tensors["encoder/num_heads"]}
    named = list(openai_names(float32_tensors))
    write_ggml(output / "f16.bin", sizes, texts, named, Type.F16)
    write_ggml(output / "q5_0.bin", sizes, texts, named, Type.Q5_0)
    write_huggingface(folder, output / "hf", named, config)
    write_candle(folder, output / "candle", named, config)
    # a multilingual vocabulary has one more text
    write_large(output, [*texts, b" of"])


if __name__ == "__main__":
    main()
