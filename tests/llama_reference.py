#!/usr/bin/env python3
"""Llama written from the equations, in numpy, in float64: the truth that tests compare with.

    llama_reference.py fixtures          writes tests/fixtures/llama: small models of random numbers and their logits
    llama_reference.py golden GGUF       writes tests/goldens/llama/smollm2.json: logits of a real file after real text
    llama_reference.py formats FOLDER    writes GGUF files of random numbers in every format, and their logits

Weights are those that a file stands for: of quantised files what their blocks decode to (by the gguf package).
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


def llama3_divisors(width, base, factor, low, high, original):
    """Of each frequency; transformers' modeling_rope_utils.py."""
    wavelengths = 2 * math.pi * base ** (np.arange(0, width, 2) / width)
    smooth = (original / wavelengths - low) / (high - low)
    divisors = 1 / ((1 - smooth) / factor + smooth)
    return np.where(wavelengths > original / low, factor, np.where(wavelengths < original / high, 1, divisors))


def rotate(x, base, divisors, halves):
    """[tokens, heads, width]; pairs are neighbours, or values of the first and of the second half."""
    tokens, _, width = x.shape
    angles = np.arange(tokens)[:, None] * base ** (-np.arange(0, width, 2) / width) / divisors
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    if halves:
        a, b = x[..., :width // 2], x[..., width // 2:]
        return np.concatenate([a * cos - b * sin, a * sin + b * cos], -1)
    a, b = x[..., ::2], x[..., 1::2]
    return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)


def rows(w, config, ids):
    """[tokens, width], normalised. Names are GGUF's without `.weight`."""
    heads, shared, width = config["heads"], config["heads"] // config["kv_heads"], config["head"]
    turn = lambda x: rotate(x, config["base"], config.get("divisors", 1), config.get("halves", False))
    split = lambda x: x.reshape(len(ids), -1, width)
    x = w["token_embd"][ids]
    mask = np.where(np.arange(len(ids)) > np.arange(len(ids))[:, None], -np.inf, 0)
    for i in range(config["layers"]):
        block = {name[len(f"blk.{i}."):]: tensor for name, tensor in w.items() if name.startswith(f"blk.{i}.")}
        y = rms_norm(x, block["attn_norm"], config["eps"])
        q, k = turn(split(y @ block["attn_q"].T)), turn(split(y @ block["attn_k"].T))
        v = split(y @ block["attn_v"].T)
        attended = [softmax(q[:, h] @ k[:, h // shared].T / math.sqrt(width) + mask) @ v[:, h // shared] for h in range(heads)]
        x = x + np.concatenate(attended, -1) @ block["attn_output"].T
        y = rms_norm(x, block["ffn_norm"], config["eps"])
        x = x + (silu(y @ block["ffn_gate"].T) * (y @ block["ffn_up"].T)) @ block["ffn_down"].T
    return rms_norm(x, w["output_norm"], config["eps"])


def logits(w, config, ids):
    """[tokens, vocabulary]."""
    return rows(w, config, ids) @ w.get("output", w["token_embd"]).T


def vectors(w, config, ids):
    """Of length 1, by name of the pooling."""
    all_rows = rows(w, config, ids)
    pooled = {"lasttoken": all_rows[-1], "mean": all_rows.mean(0)}
    return {name: rounded([row / np.linalg.norm(row)])[0] for name, row in pooled.items()}


# Files

def random_model(seed, config, tied):
    random = np.random.default_rng(seed)
    d, head, vocabulary, inner = config["width"], config["head"], config["vocabulary"], config["inner"]
    matrix = lambda n, k: random.normal(0, k**-0.5, (n, k)).astype("<f4")
    norm = lambda: random.normal(1, 0.1, d).astype("<f4")
    w = {"token_embd": random.normal(0, 1, (vocabulary, d)).astype("<f4"), "output_norm": norm()}
    for i in range(config["layers"]):
        w |= {f"blk.{i}.{name}": tensor for name, tensor in {
            "attn_norm": norm(), "ffn_norm": norm(), "attn_q": matrix(config["heads"] * head, d),
            "attn_k": matrix(config["kv_heads"] * head, d), "attn_v": matrix(config["kv_heads"] * head, d),
            "attn_output": matrix(d, config["heads"] * head), "ffn_gate": matrix(inner, d), "ffn_up": matrix(inner, d),
            "ffn_down": matrix(d, inner)}.items()}
    return w if tied else w | {"output": matrix(vocabulary, d)}


LAYERED = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up"]


def sizes(config, vocabulary):
    return struct.pack("<7i", config["width"], config["inner"], config["layers"], config["heads"], config["kv_heads"],
                       vocabulary, config["context"])


def layered(w, config, name):
    return [w[f"blk.{i}.{name}"] for i in range(config["layers"])]


def write_version_0(path, w, config, tied):
    parts = [w["token_embd"], *layered(w, config, "attn_norm"), *(t for n in LAYERED[:4] for t in layered(w, config, n)),
             *layered(w, config, "ffn_norm"), *(t for n in LAYERED[4:] for t in layered(w, config, n)), w["output_norm"],
             np.zeros(config["context"] * config["head"], "<f4")]
    parts += [] if tied else [w["output"]]
    vocabulary = config["vocabulary"] if tied else -config["vocabulary"]
    path.write_bytes(sizes(config, vocabulary) + b"".join(part.tobytes() for part in parts))


def write_newer(path, w, config, tied, group=None):
    header = struct.pack("<2i", 0x616B3432, 2 if group else 1) + sizes(config, config["vocabulary"]) + struct.pack("<B", tied)
    header += struct.pack("<i", group) if group else b""
    norms = [*layered(w, config, "attn_norm"), *layered(w, config, "ffn_norm"), w["output_norm"]]
    matrices = [w["token_embd"], *(t for n in LAYERED for t in layered(w, config, n))] + ([] if tied else [w["output"]])
    body = b"".join(norm.tobytes() for norm in norms)
    for matrix in matrices:
        body += matrix.tobytes() if not group else b"".join(part.tobytes() for part in quantised(matrix, group))
    path.write_bytes(header.ljust(256, b"\0") + body)


def quantised(matrix, group):
    rows = matrix.reshape(-1, group)
    scales = np.abs(rows).max(1) / 127
    return np.round(rows / scales[:, None]).astype("i1"), scales.astype("<f4")


def dequantised(matrix, group):
    codes, scales = quantised(matrix, group)
    return (codes * scales[:, None].astype(np.float64)).reshape(matrix.shape)


PIECES = "a b c d e h i l n o r s t w . th he in er an the and ing hello world ▁ ▁t ▁the ▁a ▁hello ▁world ▁w ▁wor ld ▁h ell".split()


def write_tokenizer(path, vocabulary):
    """As llama2.c's tokenizer.py exports one: longer pieces have higher scores here."""
    tokens = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{i:02X}>" for i in range(256)), *PIECES]
    tokens += [f"x{i}" for i in range(vocabulary - len(tokens))]
    scores = [0.0] * 259 + [float(len(piece)) + i / 1000 for i, piece in enumerate(tokens[259:])]
    data = b""
    for token, score in zip(tokens, scores):
        text = token.replace("▁", " ").encode()
        data += struct.pack("<fI", score, len(text)) + text
    path.write_bytes(struct.pack("<I", max(len(t.encode()) for t in tokens)) + data)
    return tokens, scores


def encode(text, tokens, scores):
    """llama2.c's run.c: a space in front, single characters, then the best pair joined until there is none."""
    ids = {token.replace("▁", " "): i for i, token in enumerate(tokens)}
    out = []
    for character in " " + text if text else "":
        out += [ids[character]] if character in ids else [byte + 3 for byte in character.encode()]
    spelled = lambda i: tokens[i].replace("▁", " ")
    while True:
        pairs = [(scores[ids[both]], -i, ids[both]) for i, (a, b) in enumerate(zip(out, out[1:]))
                 if (both := spelled(a) + spelled(b)) in ids]
        if not pairs:
            return out
        _, at, joined = max(pairs)
        out[-at:-at + 2] = [joined]


def as_float64(w):
    return {name: tensor.astype(np.float64) for name, tensor in w.items()}


def rounded(rows):
    return [[float(f"{v:.6g}") for v in row] for row in rows]


def write_huggingface(folder, w, config, scaling):
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    names = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
             "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    others = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

    def renamed(name):
        if name in others:
            return others[name] + ".weight"
        _, index, part = name.split(".")
        return f"model.layers.{index}.{names[part]}.weight"

    folder.mkdir(exist_ok=True)
    save_file({renamed(name): tensor for name, tensor in w.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "hidden_size": config["width"], "intermediate_size": config["inner"],
        "num_hidden_layers": config["layers"], "num_attention_heads": config["heads"],
        "num_key_value_heads": config["kv_heads"], "head_dim": config["head"], "rms_norm_eps": config["eps"],
        "rope_theta": config["base"], "max_position_embeddings": config["context"], "rope_scaling": scaling}, indent=1))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(["<s>", "</s>", *alphabet])}
    vocabulary |= {f"unused{i}": i for i in range(len(vocabulary), config["vocabulary"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<s>", "eos_token": {"content": "</s>"},
        "chat_template": "{% for m in messages %}{{ bos_token }}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"}))


def fixtures():
    FIXTURES.mkdir(exist_ok=True)
    base = {"width": 32, "inner": 44, "layers": 2, "heads": 4, "kv_heads": 2, "head": 8, "vocabulary": 304, "context": 64,
            "eps": 1e-5, "base": 1e4}
    ids = [1, 300, 17, 42, 299, 259, 3, 100, 7, 7, 7, 250, 31, 64, 128, 260, 261, 262, 263, 5, 9, 270]
    goldens = {"ids": ids, "vectors": {}}
    for version, tied, seed in ((0, False, 1), (1, True, 2), (2, True, 3)):
        w = random_model(seed, base, tied)
        path = FIXTURES / f"version-{version}.bin"
        if version == 0:
            write_version_0(path, w, base, tied)
        else:
            # groups go on from one row to the next
            write_newer(path, w, base, tied, group=32 if version == 2 else None)
        true = {name: dequantised(t, 32) if version == 2 and t.ndim == 2 else t.astype(np.float64) for name, t in w.items()}
        goldens[path.name] = rounded(logits(true, base, ids)[[0, 1, -1]])
        goldens["vectors"][path.name] = vectors(true, base, ids)
    tokens, scores = write_tokenizer(FIXTURES / "tokenizer.bin", base["vocabulary"])
    texts = ["hello world", "the weather", "", "Größe\n", "  the  and the", "hello hello hell"]
    goldens["tokens"] = [[text, encode(text, tokens, scores)] for text in texts]
    config = base | {"halves": True, "base": 5e5, "context": 256, "heads": 6, "kv_heads": 2, "head": 16}
    about = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    config["divisors"] = llama3_divisors(16, 5e5, *about.values())
    w = random_model(4, config, tied=False)
    write_huggingface(FIXTURES / "scaled", w, config, {"rope_type": "llama3", **about})
    goldens["scaled"] = rounded(logits(as_float64(w), config, ids)[[0, 1, -1]])
    goldens["vectors"]["scaled"] = vectors(as_float64(w), config, ids)
    (FIXTURES / "goldens.json").write_text(json.dumps(goldens) + "\n")


def random_blocks(random, kind, shape):
    """A matrix in one of the formats that no library quantises in Python: any bytes are numbers, once their scales are sensible."""
    blocks = shape[0] * shape[1] // 256
    raw = lambda count: random.integers(0, 256, (blocks, count), dtype=np.uint8)
    scale = lambda value: (random.uniform(0.5, 1, (blocks, 1)) * value).astype("<f2").view(np.uint8)
    parts = {
        "Q4_K": lambda: [scale(3e-4), scale(2.2e-3), raw(140)],
        "Q5_K": lambda: [scale(2e-4), scale(3e-3), raw(172)],
        "Q6_K": lambda: [raw(208), scale(4e-5)],
    }[kind]()
    return np.concatenate(parts, 1).reshape(shape[0], -1)


FORMATS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]


def formats(folder):
    from gguf import GGMLQuantizationType, GGUFWriter, quants
    from tokenizers import pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    config = {"width": 256, "inner": 512, "layers": 2, "heads": 8, "kv_heads": 4, "head": 32, "vocabulary": 320, "context": 128,
              "eps": 1e-5, "base": 1e4}
    ids = [1, 300, 17, 42, 299, 259, 3, 100, 7, 7, 250, 31, 64, 128, 260, 261, 319, 5, 9, 270]
    expected = {"ids": ids}
    for seed, kind in enumerate(FORMATS):
        random, dtype = np.random.default_rng(seed), GGMLQuantizationType[kind]
        writer = GGUFWriter(folder / f"{kind}.gguf", "llama")
        for add, name in [(writer.add_embedding_length, "width"), (writer.add_feed_forward_length, "inner"),
                          (writer.add_block_count, "layers"), (writer.add_head_count, "heads"),
                          (writer.add_head_count_kv, "kv_heads"), (writer.add_context_length, "context"),
                          (writer.add_layer_norm_rms_eps, "eps"), (writer.add_rope_freq_base, "base")]:
            add(config[name])
        alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokens = alphabet + ["ab"] + [f"unused{i}" for i in range(config["vocabulary"] - len(alphabet) - 1)]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        true, this = {}, dict(config)
        if kind == "F16":
            # as files of Llama 3.1 have their scaling
            this["divisors"] = llama3_divisors(config["head"], config["base"], 8, 1, 4, 32)
            writer.add_tensor("rope_freqs.weight", this["divisors"].astype("<f4"))
        for name, tensor in random_model(seed, config, tied=seed % 2 == 0).items():
            if tensor.ndim == 1:
                data, numbers, true[name] = tensor, None, tensor.astype(np.float64)
            else:
                numbers = dtype
                data = random_blocks(random, kind, tensor.shape) if kind in ("Q4_K", "Q5_K", "Q6_K") else quants.quantize(tensor, dtype)
                true[name] = quants.dequantize(data, dtype).astype(np.float64)
            writer.add_tensor(f"{name}.weight", data, raw_dtype=numbers)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        expected[kind] = rounded(logits(true, this, ids)[[0, 1, -1]])
    (folder / "expected.json").write_text(json.dumps(expected))


TEXT = "The tide was coming in. A boy and his grandmother stood on the sand and counted the boats:"


def golden(path):
    from gguf import GGUFReader, quants

    reader = GGUFReader(path)
    field = lambda key: reader.fields[key].contents()
    w = {t.name.removesuffix(".weight"): quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    heads = field("llama.attention.head_count")
    config = {"heads": heads, "kv_heads": field("llama.attention.head_count_kv"), "layers": field("llama.block_count"),
              "head": field("llama.embedding_length") // heads, "base": field("llama.rope.freq_base"),
              "eps": field("llama.attention.layer_norm_rms_epsilon")}
    tokens = field("tokenizer.ggml.tokens")
    # every token of this text is a token of its words: "Ġtide" and so on
    ids = [tokens.index(word) for word in "The Ġtide Ġwas Ġcoming Ġin . ĠA Ġboy Ġand Ġhis Ġgrandmother Ġstood Ġon Ġthe Ġsand Ġand Ġcounted Ġthe Ġboats :".split()]
    rows = logits(w, config, ids)
    steps = []
    for row in rows:
        best = np.argsort(-row)[:20]
        steps.append({"ids": best.tolist(), "values": [round(float(v), 4) for v in row[best]]})
    out = HERE / "goldens" / "llama" / "smollm2.json"
    out.write_text(json.dumps({"text": TEXT, "tokens": ids, "steps": steps}) + "\n")


if __name__ == "__main__":
    {"fixtures": lambda: fixtures(), "golden": lambda: golden(sys.argv[2]), "formats": lambda: formats(Path(sys.argv[2]))}[sys.argv[1]]()
