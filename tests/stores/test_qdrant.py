"""Qdrant: its client's models read the bodies, its engine keeps and searches them."""

import json

import numpy as np
import pytest
from conftest import agree, bodies, check_points, cosines, l2, lines
from qdrant_client import QdrantClient, models
from servers import Qdrant


@pytest.fixture
def qdrant(tmp_path):
    server = Qdrant(tmp_path)
    yield server
    server.shutdown()


def test_bodies_are_its_upserts(qdrant, corpus, made, queries):
    qdrant.create("documents")
    for _ in range(2):
        for line in lines(made("qdrant")):
            qdrant.upsert("documents", line)
        assert qdrant.count("documents") == len(corpus.ids)
    check_points([(id, payload) for id, payload, _ in qdrant.points("documents")], corpus)
    for query in queries:
        agree(qdrant.search("documents", query), corpus.rows, cosines(corpus.vectors, query), 1e-6)


def test_its_client_takes_them_in_memory(corpus, made, queries):
    client = QdrantClient(":memory:")
    client.create_collection("documents", vectors_config=models.VectorParams(size=384, distance=models.Distance.COSINE))
    for body in bodies(made("qdrant")):
        client.upsert("documents", models.PointsList.model_validate(body).points)
    found = client.query_points("documents", query=[float(x) for x in queries[0]], limit=10).points
    agree([point.id for point in found], corpus.rows, cosines(corpus.vectors, queries[0]), 1e-6)


def test_bytes_keep_their_order(qdrant, corpus, made, queries):
    # Its engine cuts off fractions and what is not in 0..255 without a word.
    qdrant.create("bytes", distance="Euclid", datatype="uint8")
    output = made("qdrant", "--encoding", "uint8")
    codes = {point["id"]: point["vector"] for body in bodies(output) for point in body["points"]}
    assert all(type(code) is int and 0 <= code <= 255 for vector in codes.values() for code in vector)
    for line in lines(output):
        qdrant.upsert("bytes", line)
    assert qdrant.count("bytes") == len(corpus.ids)
    matrix = np.array([codes[id] for id in corpus.ids])
    for row in (0, 50, 150):
        agree(qdrant.search("bytes", matrix[row]), corpus.rows, l2(matrix, matrix[row]))


def test_bytes_are_near_the_floats(corpus, made):
    codes = {point["id"]: point["vector"] for body in bodies(made("qdrant", "--encoding", "uint8")) for point in body["points"]}
    matrix = np.array([codes[id] for id in corpus.ids])
    shared = 0
    for row in range(len(corpus.ids)):
        exact = np.argsort(-cosines(corpus.vectors, corpus.vectors[row]), kind="stable")[:10]
        shared += len(set(exact) & set(np.argsort(-l2(matrix, matrix[row]), kind="stable")[:10]))
    # A scale per vector would give 0.4 under any distance of Qdrant.
    assert shared / (10 * len(corpus.ids)) > 0.88


def test_no_field_is_too_odd(qdrant, odd):
    qdrant.create("odd")
    output = odd("qdrant")
    if output is None:
        # There is nothing that a payload has no place for.
        pytest.fail(f"{odd.key!r} was refused")
    for line in lines(output):
        qdrant.upsert("odd", line)
    [(_, payload, _)] = qdrant.points("odd")
    assert payload[odd.key] == pytest.approx(odd.value) if isinstance(odd.value, (int, float)) else json.dumps(payload[odd.key]) == json.dumps(odd.value)
