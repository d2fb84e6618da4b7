"""A reference implementation of BERT sentence embeddings in numpy, which tests compare with.

The arithmetic is float64 and each result is rounded once, to float32, so the numbers do not depend on
the BLAS library, the number of threads or the machine.
"""

import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

erf = np.frompyfunc(math.erf, 1, 1)


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)).astype(np.float64))


def layer_norm(x, weight, bias, eps):
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + eps) * weight + bias


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def normalize(x):
    return x / np.linalg.norm(x)


POOLING = {
    "cls": lambda h: h[0],
    "lasttoken": lambda h: h[-1],
    "max": lambda h: h.max(0),
    "mean": lambda h: h.mean(0),
    "mean_sqrt_len_tokens": lambda h: h.sum(0) / math.sqrt(len(h)),
}


def load_tokenizer(path, max_length):
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


class Bert:
    """An encoder; `hidden_states(ids)` returns the last hidden states [tokens, hidden_size]."""

    def __init__(self, weights, config):
        self.weights = {name.removeprefix("bert."): tensor.astype(np.float64) for name, tensor in weights.items()}
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.eps = config["layer_norm_eps"]
        assert config["hidden_act"] == "gelu"

    @classmethod
    def load(cls, folder):
        folder = Path(folder)
        return cls(load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text()))

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x, name):
        return layer_norm(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], self.eps)

    def embed(self, ids):
        word, position, token_type = (self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type"))
        return self.norm(word[ids] + position[: len(ids)] + token_type[0], "embeddings.LayerNorm")

    def self_attention(self, x, layer):
        def split_heads(name):
            return self.linear(x, f"{layer}.attention.self.{name}").reshape(len(x), self.heads, -1).transpose(1, 0, 2)

        query, key, value = split_heads("query"), split_heads("key"), split_heads("value")
        weights = softmax(query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]))
        return (weights @ value).transpose(1, 0, 2).reshape(x.shape)

    def encoder_layer(self, x, layer):
        attended = self.linear(self.self_attention(x, layer), f"{layer}.attention.output.dense")
        x = self.norm(x + attended, f"{layer}.attention.output.LayerNorm")
        intermediate = gelu(self.linear(x, f"{layer}.intermediate.dense"))
        return self.norm(x + self.linear(intermediate, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")

    def hidden_states(self, ids):
        x = self.embed(ids)
        for index in range(self.layers):
            x = self.encoder_layer(x, f"encoder.layer.{index}")
        return x
