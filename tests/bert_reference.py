"""BERT sentence embeddings written from the equations, in numpy: the truth that tests compare with.

The weights are what the file holds; the arithmetic is float64 and each result is rounded once, to
float32. So the numbers do not depend on the BLAS, the thread count or the machine.
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
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def normalise(x):
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
    """Weights and configuration of one encoder; `hidden(ids)` gives the last hidden states [T, D]."""

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
        word, position, kind = (self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type"))
        return self.norm(word[ids] + position[: len(ids)] + kind[0], "embeddings.LayerNorm")

    def attend(self, x, layer):
        def split(name):
            return self.linear(x, f"{layer}.attention.self.{name}").reshape(len(x), self.heads, -1).transpose(1, 0, 2)

        query, key, value = split("query"), split("key"), split("value")
        scores = softmax(query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]))
        return (scores @ value).transpose(1, 0, 2).reshape(x.shape)

    def block(self, x, layer):
        attended = self.linear(self.attend(x, layer), f"{layer}.attention.output.dense")
        x = self.norm(x + attended, f"{layer}.attention.output.LayerNorm")
        widened = gelu(self.linear(x, f"{layer}.intermediate.dense"))
        return self.norm(x + self.linear(widened, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")

    def hidden(self, ids):
        x = self.embed(ids)
        for index in range(self.layers):
            x = self.block(x, f"encoder.layer.{index}")
        return x
