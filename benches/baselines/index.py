#!/usr/bin/env python3
"""Exact search with faiss and usearch, on one thread.

    index.py make LARGE N SMALL M QUERIES Q DIM    writes random float32 vectors of unit length; SMALL are the first of LARGE
    index.py speed VECTORS QUERIES DIM             prints JSON: [{"name", "ms_median", "recall_at_10"}]
"""

import json
import os
import statistics
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402

TOP_K = 10


def make(large, large_count, small, small_count, queries, query_count, dim):
    rng = np.random.default_rng(0)

    def unit_vectors(count):
        x = rng.standard_normal((count, dim), dtype="f4")
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    vectors = unit_vectors(large_count)
    vectors.tofile(large)
    vectors[:small_count].tofile(small)
    unit_vectors(query_count).tofile(queries)


def measure(search, queries, exact_top_k):
    search(queries[:1])
    times, hits = [], 0
    for query, nearest in zip(queries, exact_top_k):
        start = time.perf_counter()
        ids = search(query[None])
        times.append(1e3 * (time.perf_counter() - start))
        hits += len(set(map(int, ids)) & set(nearest))
    return {"ms_median": statistics.median(times), "recall_at_10": hits / exact_top_k.size}


def speed(vectors, queries, dim):
    import faiss
    from usearch.index import MetricKind, search

    faiss.omp_set_num_threads(1)
    x, q = (np.fromfile(path, "f4").reshape(-1, dim) for path in (vectors, queries))
    exact_top_k = np.argsort(-(q.astype("f8") @ x.T.astype("f8")), axis=1)[:, :TOP_K]
    index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index.train(x)
    index.add(x)
    scale = 127 / np.abs(x).max()
    codes = np.round(x * scale).astype("i1")
    quantize = lambda query: np.round(query * (127 / np.abs(query).max())).astype("i1")
    usearch = lambda metric: lambda query: search(codes, quantize(query), TOP_K, metric, exact=True, threads=1).keys.ravel()
    rows = [
        {"name": "faiss SQ8"} | measure(lambda query: index.search(query, TOP_K)[1][0], q, exact_top_k),
        {"name": "usearch exact int8, inner product"} | measure(usearch(MetricKind.IP), q, exact_top_k),
        {"name": "usearch exact int8, cosine"} | measure(usearch(MetricKind.Cos), q, exact_top_k),
    ]
    print(json.dumps(rows))


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "make":
        make(rest[0], int(rest[1]), rest[2], int(rest[3]), rest[4], int(rest[5]), int(rest[6]))
    else:
        speed(rest[0], rest[1], int(rest[2]))
