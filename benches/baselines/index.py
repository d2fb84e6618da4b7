#!/usr/bin/env python3
"""Searches of faiss and usearch, on one thread.

    index.py make MANY N FEW M QUERIES Q DIM    writes vectors of length 1 of random numbers, float32; FEW are the first of MANY
    index.py speed VECTORS QUERIES DIM          prints JSON: [{"name", "ms_median", "recall_at_10"}]
"""

import json
import os
import statistics
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402

COUNT = 10


def make(many, rows, few, some, queries, asked, dim):
    random = np.random.default_rng(0)

    def unit(count):
        x = random.standard_normal((count, dim), dtype="f4")
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    vectors = unit(rows)
    vectors.tofile(many)
    vectors[:some].tofile(few)
    unit(asked).tofile(queries)


def timed(search, queries, truth):
    search(queries[:1])
    times, found = [], 0
    for query, best in zip(queries, truth):
        start = time.perf_counter()
        ids = search(query[None])
        times.append(1e3 * (time.perf_counter() - start))
        found += len(set(map(int, ids)) & set(best))
    return {"ms_median": statistics.median(times), "recall_at_10": found / truth.size}


def speed(vectors, queries, dim):
    import faiss
    from usearch.index import MetricKind, search

    faiss.omp_set_num_threads(1)
    x, q = (np.fromfile(path, "f4").reshape(-1, dim) for path in (vectors, queries))
    truth = np.argsort(-(q.astype("f8") @ x.T.astype("f8")), axis=1)[:, :COUNT]
    index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index.train(x)
    index.add(x)
    scale = 127 / np.abs(x).max()
    codes = np.round(x * scale).astype("i1")
    asked = lambda query: np.round(query * (127 / np.abs(query).max())).astype("i1")
    usearch = lambda metric: lambda query: search(codes, asked(query), COUNT, metric, exact=True, threads=1).keys.ravel()
    rows = [
        {"name": "faiss SQ8"} | timed(lambda query: index.search(query, COUNT)[1][0], q, truth),
        {"name": "usearch exact int8, product"} | timed(usearch(MetricKind.IP), q, truth),
        {"name": "usearch exact int8, cosine"} | timed(usearch(MetricKind.Cos), q, truth),
    ]
    print(json.dumps(rows))


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "make":
        make(rest[0], int(rest[1]), rest[2], int(rest[3]), rest[4], int(rest[5]), int(rest[6]))
    else:
        speed(rest[0], rest[1], int(rest[2]))
