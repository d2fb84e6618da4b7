#!/usr/bin/env python3
"""Measure llama.cpp on a GGUF file; needs llama-cpp-python.

    llama.py speed MODEL THREADS PREFILL DECODE    {"prefill_tok_s", "decode_tok_s"}: medians of three runs after a warm-up
    llama.py perplexity MODEL THREADS TOKENS       {"perplexity"} of a list of token ids in a JSON file
    llama.py greedy MODEL THREADS PROMPTS COUNT    [{"tokens", "margins"}] for each prompt of a JSON file; a margin is the difference
                                                   of the two highest logits
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
        decode_start = time.perf_counter()
        for i in range(int(decode)):
            model.eval([100 + i])
        rates.append((len(tokens) / (decode_start - start), int(decode) / (time.perf_counter() - decode_start)))
    prefill, decode = (sorted(rate)[1] for rate in zip(*rates[1:]))
    return {"prefill_tok_s": prefill, "decode_tok_s": decode}


def perplexity(path, threads, file):
    tokens = json.load(open(file))
    model = load(path, threads, len(tokens) + 8, True)
    model.eval(tokens)
    scores = np.asarray(model.scores[:len(tokens) - 1], np.float64)
    top = scores.max(-1)
    logprobs = scores[np.arange(len(tokens) - 1), tokens[1:]] - top - np.log(np.exp(scores - top[:, None]).sum(-1))
    return {"perplexity": math.exp(-logprobs.mean())}


def greedy(path, threads, file, count):
    model, completions = load(path, threads, 1024, False), []
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
        completions.append({"tokens": out, "margins": margins})
    return completions


if __name__ == "__main__":
    command, path, threads, *rest = sys.argv[1:]
    print(json.dumps({"speed": speed, "perplexity": perplexity, "greedy": greedy}[command](path, int(threads), *rest)))
