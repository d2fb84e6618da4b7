#!/usr/bin/env python3
"""What llama.cpp makes of a GGUF file; needs llama-cpp-python.

    llama.py speed MODEL THREADS PREFILL DECODE    {"prefill_tok_s", "decode_tok_s"}: medians of three after one that is not timed
    llama.py perplexity MODEL THREADS TOKENS       of a list of token ids in a JSON file: {"perplexity"}
    llama.py greedy MODEL THREADS PROMPTS COUNT    texts of a JSON file: [{"tokens", "margins"}], the distance of the two likeliest
"""

import json
import math
import sys
import time

import numpy as np
from llama_cpp import Llama


def load(path, threads, context, all_logits):
    return Llama(path, n_threads=threads, n_threads_batch=threads, n_ctx=context, logits_all=all_logits, verbose=False)


def speed(path, threads, prefill, decode):
    model = load(path, threads, 1024, False)
    tokens = model.tokenize(("The quick brown fox jumps over the lazy dog. " * 200).encode())[:int(prefill)]
    rates = []
    for _ in range(4):
        model.reset()
        start = time.perf_counter()
        model.eval(tokens)
        middle = time.perf_counter()
        for i in range(int(decode)):
            model.eval([100 + i])
        rates.append((len(tokens) / (middle - start), int(decode) / (time.perf_counter() - middle)))
    prefill, decode = (sorted(rate)[1] for rate in zip(*rates[1:]))
    return {"prefill_tok_s": prefill, "decode_tok_s": decode}


def perplexity(path, threads, file):
    tokens = json.load(open(file))
    model = load(path, threads, len(tokens) + 8, True)
    model.eval(tokens)
    scores = np.asarray(model.scores[:len(tokens) - 1], np.float64)
    top = scores.max(-1)
    logs = scores[np.arange(len(tokens) - 1), tokens[1:]] - top - np.log(np.exp(scores - top[:, None]).sum(-1))
    return {"perplexity": math.exp(-logs.mean())}


def greedy(path, threads, file, count):
    model, found = load(path, threads, 1024, False), []
    for prompt in json.load(open(file)):
        tokens, out, margins = model.tokenize(prompt.encode(), add_bos=False, special=True), [], []
        model.reset()
        for _ in range(int(count)):
            model.eval(tokens)
            scores = np.asarray(model._scores[-1] if len(model._scores) else model.scores[model.n_tokens - 1])
            second, first = np.partition(scores, -2)[-2:]
            tokens = [int(scores.argmax())]
            out += tokens
            margins.append(float(first - second))
        found.append({"tokens": out, "margins": margins})
    return found


if __name__ == "__main__":
    what, path, threads, *rest = sys.argv[1:]
    print(json.dumps({"speed": speed, "perplexity": perplexity, "greedy": greedy}[what](path, int(threads), *rest)))
