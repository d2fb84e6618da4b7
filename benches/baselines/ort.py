#!/usr/bin/env python3
"""Run a model of minilm_onnx.py in ONNX Runtime.

    ort.py MODEL.onnx THREADS bench 1x16 64x8-256   prints one object per shape: milliseconds from token ids to hidden states
    ort.py MODEL.onnx THREADS embed TOKENS.json     prints one normalized embedding per line, each from a list of token ids
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


def pad(texts):
    """Token ids padded to the longest text, and the attention mask."""
    longest = max(map(len, texts))
    ids, mask = np.zeros((len(texts), longest), np.int64), np.zeros((len(texts), longest), np.int64)
    for row, text in enumerate(texts):
        ids[row, :len(text)], mask[row, :len(text)] = text, 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def random_texts(shape):
    """Token ids of ordinary words from Knuth's MMIX generator, with the same lengths as in `tealight bench embed`."""
    batch, tokens = shape.split("x")
    minimum, maximum = map(int, (tokens.split("-") * 2)[:2])
    state = 1

    def below(limit):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % limit

    lengths = [minimum + below(maximum - minimum + 1) for _ in range(int(batch))]
    return [[1000 + below(29000) for _ in range(length)] for length in lengths]


def bench(session, shape):
    texts = random_texts(shape)
    inputs, times = pad(texts), []
    for _ in range(WARM_UPS):
        session.run(None, inputs)
    # the same number of runs as `tealight bench embed`
    for _ in range(min(100, max(5, 20000 // sum(map(len, texts))))):
        start = time.perf_counter()
        session.run(None, inputs)
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    print(json.dumps({"shape": shape, "ms_median": times[len(times) // 2], "ms_min": times[0]}))


def embed(session, tokens):
    for ids in json.loads(Path(tokens).read_text()):
        mean = session.run(None, pad([ids]))[0][0].mean(0)
        print(json.dumps((mean / np.linalg.norm(mean)).tolist()))


def main():
    model, threads, command, *rest = sys.argv[1:]
    session = open_session(model, int(threads))
    for argument in rest:
        {"bench": bench, "embed": embed}[command](session, argument)


if __name__ == "__main__":
    main()
