"""Where the server is, and what its vectors should be."""

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
    """The API key, where the server has one. A server without takes any."""
    return os.environ.get("TEALIGHT_API_KEY", "none")


@pytest.fixture(scope="session")
def goldens():
    """Texts and their float32 vectors from an independent implementation."""
    texts = json.loads((GOLDENS / "texts.json").read_text())
    vectors = np.load(GOLDENS / "vectors.npy")
    assert len(texts) == len(vectors) >= 200
    kept = [row for row, text in enumerate(texts) if text]
    return [texts[row] for row in kept], vectors[kept]


@pytest.fixture(scope="session")
def cosine(url, key):
    """How near vectors are to float32's: the mean and the least. As tests/goldens.rs has them, whose AVX2 has activations of 7 bits."""
    isa = requests.get(f"{url}/status", headers={"authorization": f"Bearer {key}"}, timeout=60).json()["isa"]
    return (0.998, 0.994) if isa == "avx2" else (0.999, 0.997)


def cosines(left, right):
    """The cosine of each row of `left` with the same row of `right`."""
    left, right = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return (left * right).sum(axis=-1) / norms


def batches(items, size):
    return [items[start : start + size] for start in range(0, len(items), size)]
