"""The server under test and the expected embeddings."""

import json
import os
import pathlib

import numpy as np
import pytest
import requests

MODEL = "all-MiniLM-L6-v2"
DIMENSION = 384
MAX_TOKENS = 256
GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


@pytest.fixture(scope="session")
def url():
    if "TEALIGHT_URL" not in os.environ:
        pytest.exit("TEALIGHT_URL is not set: run this under tests/with_server", returncode=2)
    return os.environ["TEALIGHT_URL"].rstrip("/")


@pytest.fixture(scope="session")
def key():
    """The API key of the server. A server without a key accepts any."""
    return os.environ.get("TEALIGHT_API_KEY", "none")


@pytest.fixture(scope="session")
def goldens():
    """Texts and their float32 embeddings from an independent implementation, [texts, DIMENSION]."""
    texts = json.loads((GOLDENS / "texts.json").read_text())
    vectors = np.load(GOLDENS / "vectors.npy")
    assert len(texts) == len(vectors) >= 200
    non_empty = [row for row, text in enumerate(texts) if text]
    return [texts[row] for row in non_empty], vectors[non_empty]


@pytest.fixture(scope="session")
def min_cosine(url, key):
    """Minimum mean and minimum cosine similarity to float32, as in tests/integration/embeddings.rs. AVX2 uses 7-bit activations, which cost accuracy."""
    isa = requests.get(f"{url}/status", headers={"authorization": f"Bearer {key}"}, timeout=60).json()["isa"]
    return (0.998, 0.994) if isa == "avx2" else (0.999, 0.997)


def cosines(left, right):
    """The cosine similarity of each row of `left` with the same row of `right`."""
    left, right = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return (left * right).sum(axis=-1) / norms


def batches(items, size):
    return [items[start : start + size] for start in range(0, len(items), size)]
