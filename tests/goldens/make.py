#!/usr/bin/env python3
"""Write texts.json, tokens.json and vectors.npy: edge-case texts, and their tokens and embeddings by all-MiniLM-L6-v2.

    python3 -m venv target/fixtures && target/fixtures/bin/pip install -r tests/fixtures/requirements.txt
    target/fixtures/bin/python tests/goldens/make.py "$(models/fetch)" [--reference minilm_ref.py]

--reference names a second implementation with a class MiniLM(folder) and a method embed(text); the
script fails if its embeddings differ.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bert_reference import POOLING, Bert, load_tokenizer, normalize
from texts import LENGTHS, TOO_LONG, all_texts

MAX_TOKENS = 256
TOLERANCE = 2e-6  # float32 arithmetic against float64


def check_lengths(folder, texts):
    """Asserts that the texts made for a number of tokens have it, so that no length goes untested."""
    tokenizer = load_tokenizer(folder / "tokenizer.json", max(TOO_LONG))
    lengths = [len(tokenizer.encode(text).ids) for text in texts[-len(LENGTHS + TOO_LONG):]]
    assert lengths == LENGTHS + TOO_LONG, lengths


def check_second_opinion(path, folder, texts, vectors):
    spec = importlib.util.spec_from_file_location("second", path)
    second = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(second)
    model = second.MiniLM(folder)
    worst = max(float(np.abs(model.embed(text) - vector).max()) for text, vector in zip(texts, vectors))
    print(f"largest difference to {path}: {worst:.2e}", file=sys.stderr)
    if worst > TOLERANCE:
        sys.exit("the two references disagree")


def write_json(name, value):
    # ASCII only: control and bidi characters in a committed file could mislead readers
    text = ",\n".join(json.dumps(item, separators=(",", ":")) for item in value)
    (HERE / name).write_text(f"[\n{text}\n]\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--reference", type=Path, help="second implementation to compare with")
    options = parser.parse_args()
    texts, tokenizer, model = all_texts(), load_tokenizer(options.folder / "tokenizer.json", MAX_TOKENS), Bert.load(options.folder)
    check_lengths(options.folder, texts)
    tokens = [tokenizer.encode(text).ids for text in texts]
    vectors = np.array([normalize(POOLING["mean"](model.hidden_states(ids))) for ids in tokens], dtype="<f4")
    if options.reference:
        check_second_opinion(options.reference, options.folder, texts, vectors)
    write_json("texts.json", texts)
    write_json("tokens.json", tokens)
    np.save(HERE / "vectors.npy", vectors)
    print(f"{len(texts)} texts, {sum(map(len, tokens))} tokens", file=sys.stderr)


if __name__ == "__main__":
    main()
