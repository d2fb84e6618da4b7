#!/usr/bin/env python3
"""Cosine similarity of tealight's embeddings to float64 embeddings on 1,200 sentences from a public data set: tweets, product reviews,
movie reviews and newspaper editorials in the PyPI package vaderSentiment (MIT license).

    accuracy.py MODEL_FOLDER            measures TEALIGHT_BIN (default: target/release/tealight); exits with 1 if a target is missed
    accuracy.py MODEL_FOLDER prepare    writes texts.json, tokens.json and vectors.npy to target/accuracy

None of them are in the calibration data of the model (calibration.txt).
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from bert_reference import POOLING, Bert, load_tokenizer, normalize

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "target" / "accuracy"
PACKAGE, SHA256 = "vaderSentiment==3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
DATA_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = ["tweets", "amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets"]
SENTENCES_PER_FILE = 300
MAX_TOKENS = 256

# mean, first percentile, minimum
TARGETS = {"avx2": (0.999, None, None)}
TARGET = (0.9995, 0.999, 0.998)


def download():
    """The source archive of the package, verified by checksum."""
    path = CACHE / "vaderSentiment-3.3.2.tar.gz"
    if not path.exists():
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--no-binary", ":all:", "--dest", str(CACHE), PACKAGE], check=True)
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        sys.exit(f"{path}: sha256 is {digest}, expected {SHA256}")
    return data


def read_member(archive, suffix):
    name = next(name for name in archive.getnames() if name.endswith(suffix))
    return archive.extractfile(name).read()


def sentences():
    with tarfile.open(fileobj=io.BytesIO(download())) as outer, tarfile.open(fileobj=io.BytesIO(read_member(outer, DATA_ARCHIVE))) as archive:
        for name in FILES:
            lines = read_member(archive, f"{name}_GroundTruth.txt").decode("utf-8", "replace").splitlines()
            texts = [line.split("\t", 2)[2] for line in lines if line.count("\t") >= 2]
            yield from texts[::len(texts) // SENTENCES_PER_FILE][:SENTENCES_PER_FILE]


def prepare(folder):
    """Writes the texts, their tokens and their float64 embeddings unless they exist. Returns texts and embeddings."""
    files = [CACHE / name for name in ("texts.json", "tokens.json", "vectors.npy")]
    if not all(path.exists() for path in files):
        texts = list(sentences())
        assert len(texts) == SENTENCES_PER_FILE * len(FILES), len(texts)
        tokenizer, model = load_tokenizer(folder / "tokenizer.json", MAX_TOKENS), Bert.load(folder)
        tokens = [tokenizer.encode(text).ids for text in texts]
        expected = np.array([normalize(POOLING["mean"](model.hidden_states(ids))) for ids in tokens], dtype="<f4")
        files[0].write_text(json.dumps(texts))
        files[1].write_text(json.dumps(tokens))
        np.save(files[2], expected)
    return json.loads(files[0].read_text()), np.load(files[2]).astype(np.float64)


def embed(tealight, texts, isa):
    with tempfile.TemporaryDirectory() as folder:
        documents, out = Path(folder) / "texts.jsonl", Path(folder) / "vectors.npy"
        documents.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        subprocess.run([tealight, "embed", "--input", documents, "--format", "npy", "--truncate", "--output", out],
                       env=os.environ | {"TEALIGHT_ISA": isa}, check=True)
        return np.load(out).astype(np.float64)


def check(isa, cosines):
    lowest_percent = np.sort(cosines)[:max(1, len(cosines) // 100)]
    values = (cosines.mean(), lowest_percent.max(), cosines.min())
    print(f"{isa}: {len(cosines)} sentences, cosine similarity to float64: mean {values[0]:.5f}, p1 {values[1]:.5f}, minimum {values[2]:.5f}")
    return all(target is None or value >= target for value, target in zip(values, TARGETS.get(isa, TARGET)))


def main():
    folder = Path(sys.argv[1])
    CACHE.mkdir(parents=True, exist_ok=True)
    texts, expected = prepare(folder)
    if sys.argv[2:] == ["prepare"]:
        return
    tealight = os.environ.get("TEALIGHT_BIN", ROOT / "target/release/tealight")
    default_isa = json.loads(subprocess.run([tealight, "info", "--json"], capture_output=True, check=True).stdout)["isa"]
    isas = [default_isa] if default_isa in ("scalar", "avx2", "neon") else [default_isa, "avx2"]
    passed = [check(isa, (embed(tealight, texts, isa) * expected).sum(1)) for isa in isas]
    if not all(passed):
        sys.exit(f"targets (mean, p1, minimum): {TARGET}; on AVX2 {TARGETS['avx2']}")


if __name__ == "__main__":
    main()
