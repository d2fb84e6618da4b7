#!/usr/bin/env python3
"""A float64 reference implementation of Llama in numpy, which tests compare with.

    llama_reference.py fixtures          writes tests/fixtures/llama: small models with random weights, and their logits
    llama_reference.py golden GGUF       writes tests/goldens/llama/smollm2.json: logits of a real model for a text
    llama_reference.py formats FOLDER    writes GGUF files with random weights in every format, and their logits

The weights of quantized files are dequantized by the gguf package.
"""

import json
import math
import struct
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
FIXTURES = HERE / "fixtures" / "llama"


# The network

def rms_norm(x, weight, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def llama3_freq_factors(head_dim, rope_theta, factor, low, high, original):
    """The divisor of each RoPE frequency, as in transformers' modeling_rope_utils.py."""
    wavelengths = 2 * math.pi * rope_theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = (original / wavelengths - low) / (high - low)
    interpolated = 1 / ((1 - smooth) / factor + smooth)
    return np.where(wavelengths > original / low, factor, np.where(wavelengths < original / high, 1, interpolated))


def apply_rope(x, rope_theta, freq_factors, rotate_half):
    """x is [tokens, heads, head_dim]. Pairs are adjacent values, or with rotate_half values of the first and of the second half."""
    tokens, _, head_dim = x.shape
    angles = np.arange(tokens)[:, None] * rope_theta ** (-np.arange(0, head_dim, 2) / head_dim) / freq_factors
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    if rotate_half:
        a, b = x[..., :head_dim // 2], x[..., head_dim // 2:]
        return np.concatenate([a * cos - b * sin, a * sin + b * cos], -1)
    a, b = x[..., ::2], x[..., 1::2]
    return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)


def hidden_states(w, config, ids):
    """[tokens, hidden_size], after the last norm. Tensor names are those of GGUF without `.weight`."""
    heads, group_size, head_dim = config["num_attention_heads"], config["num_attention_heads"] // config["num_key_value_heads"], config["head_dim"]
    rope = lambda x: apply_rope(x, config["rope_theta"], config.get("freq_factors", 1), config.get("rotate_half", False))
    split_heads = lambda x: x.reshape(len(ids), -1, head_dim)
    x = w["token_embd"][ids]
    mask = np.where(np.arange(len(ids)) > np.arange(len(ids))[:, None], -np.inf, 0)
    for i in range(config["num_hidden_layers"]):
        layer = {name[len(f"blk.{i}."):]: tensor for name, tensor in w.items() if name.startswith(f"blk.{i}.")}
        y = rms_norm(x, layer["attn_norm"], config["rms_norm_eps"])
        q, k = rope(split_heads(y @ layer["attn_q"].T)), rope(split_heads(y @ layer["attn_k"].T))
        v = split_heads(y @ layer["attn_v"].T)
        attended = [softmax(q[:, h] @ k[:, h // group_size].T / math.sqrt(head_dim) + mask) @ v[:, h // group_size] for h in range(heads)]
        x = x + np.concatenate(attended, -1) @ layer["attn_output"].T
        y = rms_norm(x, layer["ffn_norm"], config["rms_norm_eps"])
        x = x + (silu(y @ layer["ffn_gate"].T) * (y @ layer["ffn_up"].T)) @ layer["ffn_down"].T
    return rms_norm(x, w["output_norm"], config["rms_norm_eps"])


def logits(w, config, ids):
    """[tokens, vocab_size]."""
    return hidden_states(w, config, ids) @ w.get("output", w["token_embd"]).T


def embeddings(w, config, ids):
    """Unit-length embeddings by pooling mode."""
    states = hidden_states(w, config, ids)
    pooled = {"lasttoken": states[-1], "mean": states.mean(0)}
    return {mode: round_rows([vector / np.linalg.norm(vector)])[0] for mode, vector in pooled.items()}


# Files

def random_model(seed, config, tied):
    rng = np.random.default_rng(seed)
    d, head_dim, vocab_size, intermediate_size = config["hidden_size"], config["head_dim"], config["vocab_size"], config["intermediate_size"]
    matrix = lambda n, k: rng.normal(0, k**-0.5, (n, k)).astype("<f4")
    norm = lambda: rng.normal(1, 0.1, d).astype("<f4")
    w = {"token_embd": rng.normal(0, 1, (vocab_size, d)).astype("<f4"), "output_norm": norm()}
    for i in range(config["num_hidden_layers"]):
        w |= {f"blk.{i}.{name}": tensor for name, tensor in {
            "attn_norm": norm(), "ffn_norm": norm(), "attn_q": matrix(config["num_attention_heads"] * head_dim, d),
            "attn_k": matrix(config["num_key_value_heads"] * head_dim, d), "attn_v": matrix(config["num_key_value_heads"] * head_dim, d),
            "attn_output": matrix(d, config["num_attention_heads"] * head_dim), "ffn_gate": matrix(intermediate_size, d), "ffn_up": matrix(intermediate_size, d),
            "ffn_down": matrix(d, intermediate_size)}.items()}
    return w if tied else w | {"output": matrix(vocab_size, d)}


LAYER_MATRICES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up"]


def pack_sizes(config, vocab_size):
    return struct.pack("<7i", config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"],
                       config["num_attention_heads"], config["num_key_value_heads"], vocab_size, config["max_position_embeddings"])


def layer_tensors(w, config, name):
    return [w[f"blk.{i}.{name}"] for i in range(config["num_hidden_layers"])]


def write_version_0(path, w, config, tied):
    parts = [w["token_embd"], *layer_tensors(w, config, "attn_norm"), *(t for n in LAYER_MATRICES[:4] for t in layer_tensors(w, config, n)),
             *layer_tensors(w, config, "ffn_norm"), *(t for n in LAYER_MATRICES[4:] for t in layer_tensors(w, config, n)), w["output_norm"],
             np.zeros(config["max_position_embeddings"] * config["head_dim"], "<f4")]
    parts += [] if tied else [w["output"]]
    vocab_size = config["vocab_size"] if tied else -config["vocab_size"]
    path.write_bytes(pack_sizes(config, vocab_size) + b"".join(part.tobytes() for part in parts))


def write_version_1_or_2(path, w, config, tied, group=None):
    header = struct.pack("<2i", 0x616B3432, 2 if group else 1) + pack_sizes(config, config["vocab_size"]) + struct.pack("<B", tied)
    header += struct.pack("<i", group) if group else b""
    norms = [*layer_tensors(w, config, "attn_norm"), *layer_tensors(w, config, "ffn_norm"), w["output_norm"]]
    matrices = [w["token_embd"], *(t for n in LAYER_MATRICES for t in layer_tensors(w, config, n))] + ([] if tied else [w["output"]])
    body = b"".join(norm.tobytes() for norm in norms)
    for matrix in matrices:
        body += matrix.tobytes() if not group else b"".join(part.tobytes() for part in quantize_groups(matrix, group))
    path.write_bytes(header.ljust(256, b"\0") + body)


def quantize_groups(matrix, group):
    rows = matrix.reshape(-1, group)
    scales = np.abs(rows).max(1) / 127
    return np.round(rows / scales[:, None]).astype("i1"), scales.astype("<f4")


def dequantize_groups(matrix, group):
    codes, scales = quantize_groups(matrix, group)
    return (codes * scales[:, None].astype(np.float64)).reshape(matrix.shape)


PIECES = "a b c d e h i l n o r s t w . th he in er an the and ing hello world ▁ ▁t ▁the ▁a ▁hello ▁world ▁w ▁wor ld ▁h ell".split()


def write_tokenizer(path, vocab_size):
    """Writes a tokenizer in the format of llama2.c's tokenizer.py. Longer pieces have higher scores."""
    tokens = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{i:02X}>" for i in range(256)), *PIECES]
    tokens += [f"x{i}" for i in range(vocab_size - len(tokens))]
    scores = [0.0] * 259 + [float(len(piece)) + i / 1000 for i, piece in enumerate(tokens[259:])]
    data = b""
    for token, score in zip(tokens, scores):
        text = token.replace("▁", " ").encode()
        data += struct.pack("<fI", score, len(text)) + text
    path.write_bytes(struct.pack("<I", max(len(t.encode()) for t in tokens)) + data)
    return tokens, scores


def encode(text, tokens, scores):
    """BPE as in llama2.c's run.c: starts from single characters after a leading space and merges the best pair until there is none."""
    ids = {token.replace("▁", " "): i for i, token in enumerate(tokens)}
    out = []
    for character in " " + text if text else "":
        out += [ids[character]] if character in ids else [byte + 3 for byte in character.encode()]
    spelling = lambda i: tokens[i].replace("▁", " ")
    while True:
        pairs = [(scores[ids[pair]], -i, ids[pair]) for i, (a, b) in enumerate(zip(out, out[1:]))
                 if (pair := spelling(a) + spelling(b)) in ids]
        if not pairs:
            return out
        _, negated_index, merged = max(pairs)
        out[-negated_index:-negated_index + 2] = [merged]


def to_float64(w):
    return {name: tensor.astype(np.float64) for name, tensor in w.items()}


def round_rows(rows):
    return [[float(f"{v:.6g}") for v in row] for row in rows]


def write_huggingface(folder, w, config, scaling):
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    names = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
             "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    others = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

    def hf_name(name):
        if name in others:
            return others[name] + ".weight"
        _, index, part = name.split(".")
        return f"model.layers.{index}.{names[part]}.weight"

    folder.mkdir(exist_ok=True)
    save_file({hf_name(name): tensor for name, tensor in w.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "hidden_size": config["hidden_size"], "intermediate_size": config["intermediate_size"],
        "num_hidden_layers": config["num_hidden_layers"], "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config["num_key_value_heads"], "head_dim": config["head_dim"], "rms_norm_eps": config["rms_norm_eps"],
        "rope_theta": config["rope_theta"], "max_position_embeddings": config["max_position_embeddings"], "rope_scaling": scaling}, indent=1))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(["<s>", "</s>", *alphabet])}
    vocabulary |= {f"unused{i}": i for i in range(len(vocabulary), config["vocab_size"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<s>", "eos_token": {"content": "</s>"},
        "chat_template": "{% for m in messages %}{{ bos_token }}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"}))


def fixtures():
    FIXTURES.mkdir(exist_ok=True)
    base = {"hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 8, "vocab_size": 304, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4}
    ids = [1, 300, 17, 42, 299, 259, 3, 100, 7, 7, 7, 250, 31, 64, 128, 260, 261, 262, 263, 5, 9, 270]
    goldens = {"ids": ids, "vectors": {}}
    for version, tied, seed in ((0, False, 1), (1, True, 2), (2, True, 3)):
        w = random_model(seed, base, tied)
        path = FIXTURES / f"version-{version}.bin"
        if version == 0:
            write_version_0(path, w, base, tied)
        else:
            # groups may span rows
            write_version_1_or_2(path, w, base, tied, group=32 if version == 2 else None)
        reference_weights = {name: dequantize_groups(t, 32) if version == 2 and t.ndim == 2 else t.astype(np.float64) for name, t in w.items()}
        goldens[path.name] = round_rows(logits(reference_weights, base, ids)[[0, 1, -1]])
        goldens["vectors"][path.name] = embeddings(reference_weights, base, ids)
    tokens, scores = write_tokenizer(FIXTURES / "tokenizer.bin", base["vocab_size"])
    texts = ["hello world", "the weather", "", "Größe\n", "  the  and the", "hello hello hell"]
    goldens["tokens"] = [[text, encode(text, tokens, scores)] for text in texts]
    config = base | {"rotate_half": True, "rope_theta": 5e5, "max_position_embeddings": 256, "num_attention_heads": 6,
                     "num_key_value_heads": 2, "head_dim": 16}
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    config["freq_factors"] = llama3_freq_factors(16, 5e5, *scaling.values())
    w = random_model(4, config, tied=False)
    write_huggingface(FIXTURES / "scaled", w, config, {"rope_type": "llama3", **scaling})
    goldens["scaled"] = round_rows(logits(to_float64(w), config, ids)[[0, 1, -1]])
    goldens["vectors"]["scaled"] = embeddings(to_float64(w), config, ids)
    (FIXTURES / "goldens.json").write_text(json.dumps(goldens) + "\n")


def random_blocks(rng, format_name, shape):
    """A random matrix in a format that the gguf package cannot quantize. Any bytes are valid weights if the scales are reasonable."""
    blocks = shape[0] * shape[1] // 256
    raw = lambda count: rng.integers(0, 256, (blocks, count), dtype=np.uint8)
    scale = lambda value: (rng.uniform(0.5, 1, (blocks, 1)) * value).astype("<f2").view(np.uint8)
    parts = {
        "Q4_K": lambda: [scale(3e-4), scale(2.2e-3), raw(140)],
        "Q5_K": lambda: [scale(2e-4), scale(3e-3), raw(172)],
        "Q6_K": lambda: [raw(208), scale(4e-5)],
    }[format_name]()
    return np.concatenate(parts, 1).reshape(shape[0], -1)


FORMATS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]


def formats(folder):
    from gguf import GGMLQuantizationType, GGUFWriter, quants
    from tokenizers import pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    config = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4,
              "head_dim": 32, "vocab_size": 320, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 1e4}
    ids = [1, 300, 17, 42, 299, 259, 3, 100, 7, 7, 250, 31, 64, 128, 260, 261, 319, 5, 9, 270]
    expected = {"ids": ids}
    for seed, format_name in enumerate(FORMATS):
        rng, dtype = np.random.default_rng(seed), GGMLQuantizationType[format_name]
        writer = GGUFWriter(folder / f"{format_name}.gguf", "llama")
        for add, name in [(writer.add_embedding_length, "hidden_size"), (writer.add_feed_forward_length, "intermediate_size"),
                          (writer.add_block_count, "num_hidden_layers"), (writer.add_head_count, "num_attention_heads"),
                          (writer.add_head_count_kv, "num_key_value_heads"), (writer.add_context_length, "max_position_embeddings"),
                          (writer.add_layer_norm_rms_eps, "rms_norm_eps"), (writer.add_rope_freq_base, "rope_theta")]:
            add(config[name])
        alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokens = alphabet + ["ab"] + [f"unused{i}" for i in range(config["vocab_size"] - len(alphabet) - 1)]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        reference_weights, model_config = {}, dict(config)
        if format_name == "F16":
            # RoPE scaling as in GGUF files of Llama 3.1
            model_config["freq_factors"] = llama3_freq_factors(config["head_dim"], config["rope_theta"], 8, 1, 4, 32)
            writer.add_tensor("rope_freqs.weight", model_config["freq_factors"].astype("<f4"))
        for name, tensor in random_model(seed, config, tied=seed % 2 == 0).items():
            if tensor.ndim == 1:
                data, raw_dtype, reference_weights[name] = tensor, None, tensor.astype(np.float64)
            else:
                raw_dtype = dtype
                data = random_blocks(rng, format_name, tensor.shape) if format_name in ("Q4_K", "Q5_K", "Q6_K") else quants.quantize(tensor, dtype)
                reference_weights[name] = quants.dequantize(data, dtype).astype(np.float64)
            writer.add_tensor(f"{name}.weight", data, raw_dtype=raw_dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        expected[format_name] = round_rows(logits(reference_weights, model_config, ids)[[0, 1, -1]])
    (folder / "expected.json").write_text(json.dumps(expected))


TEXT = "The tide was coming in. A boy and his grandmother stood on the sand and counted the boats:"


def golden(path):
    from gguf import GGUFReader, quants

    reader = GGUFReader(path)
    field = lambda key: reader.fields[key].contents()
    w = {t.name.removesuffix(".weight"): quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    heads = field("llama.attention.head_count")
    config = {"num_attention_heads": heads, "num_key_value_heads": field("llama.attention.head_count_kv"),
              "num_hidden_layers": field("llama.block_count"), "head_dim": field("llama.embedding_length") // heads, "rope_theta": field("llama.rope.freq_base"),
              "rms_norm_eps": field("llama.attention.layer_norm_rms_epsilon")}
    tokens = field("tokenizer.ggml.tokens")
    # each word of the text is one token
    ids = [tokens.index(word) for word in "The Ġtide Ġwas Ġcoming Ġin . ĠA Ġboy Ġand Ġhis Ġgrandmother Ġstood Ġon Ġthe Ġsand Ġand Ġcounted Ġthe Ġboats :".split()]
    steps = []
    for row in logits(w, config, ids):
        top = np.argsort(-row)[:20]
        steps.append({"ids": top.tolist(), "values": [round(float(v), 4) for v in row[top]]})
    out = HERE / "goldens" / "llama" / "smollm2.json"
    out.write_text(json.dumps({"text": TEXT, "tokens": ids, "steps": steps}) + "\n")


if __name__ == "__main__":
    {"fixtures": lambda: fixtures(), "golden": lambda: golden(sys.argv[2]), "formats": lambda: formats(Path(sys.argv[2]))}[sys.argv[1]]()
