#!/usr/bin/env python3
"""Run a graph of minilm_onnx.py in ONNX Runtime.

    ort.py MODEL.onnx THREADS bench 1x16 32x128   prints an object a shape: milliseconds from token ids to hidden states
    ort.py MODEL.onnx THREADS embed TOKENS.json   prints a normalised vector a line, each from a list of token ids
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

WARM_UPS = 3


def open_session(model, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feed(ids):
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def random_ids(batch, tokens):
    """Ordinary words between [CLS] and [SEP], the same in every run."""
    ids = np.random.default_rng(0).integers(1000, 30000, (batch, tokens))
    ids[:, 0], ids[:, -1] = 101, 102
    return ids


def bench(session, shape):
    batch, tokens = map(int, shape.split("x"))
    inputs, times = feed(random_ids(batch, tokens)), []
    for _ in range(WARM_UPS):
        session.run(None, inputs)
    # as many runs as `tealight bench embed` makes
    for _ in range(min(100, max(5, 20000 // (batch * tokens)))):
        start = time.perf_counter()
        session.run(None, inputs)
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    print(json.dumps({"batch": batch, "tokens": tokens, "ms_median": times[len(times) // 2], "ms_min": times[0]}))


def embed(session, tokens):
    for ids in json.loads(Path(tokens).read_text()):
        mean = session.run(None, feed(np.array([ids])))[0][0].mean(0)
        print(json.dumps((mean / np.linalg.norm(mean)).tolist()))


def main():
    model, threads, command, *rest = sys.argv[1:]
    session = open_session(model, int(threads))
    for argument in rest:
        {"bench": bench, "embed": embed}[command](session, argument)


if __name__ == "__main__":
    main()
