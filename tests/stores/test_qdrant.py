"""Qdrant: the models of its client parse the bodies; Qdrant Edge stores and searches the points."""

import json

import numpy as np
import pytest
from conftest import assert_nearest, check_points, cosines, l2, parse_bodies, split_lines
from qdrant_client import QdrantClient, models
from servers import Qdrant


@pytest.fixture
def qdrant(tmp_path):
    server = Qdrant(tmp_path)
    yield server
    server.shutdown()


def test_bodies_are_valid_upserts(qdrant, corpus, corpus_as, queries):
    qdrant.create("documents")
    for _ in range(2):
        for line in split_lines(corpus_as("qdrant")):
            qdrant.upsert("documents", line)
        assert qdrant.count("documents") == len(corpus.ids)
    check_points([(id, payload) for id, payload, _ in qdrant.points("documents")], corpus)
    for query in queries:
        assert_nearest(qdrant.search("documents", query), corpus.rows, cosines(corpus.vectors, query), 1e-6)


def test_in_memory_client_accepts_bodies(corpus, corpus_as, queries):
    client = QdrantClient(":memory:")
    client.create_collection("documents", vectors_config=models.VectorParams(size=384, distance=models.Distance.COSINE))
    for body in parse_bodies(corpus_as("qdrant")):
        client.upsert("documents", models.PointsList.model_validate(body).points)
    found = client.query_points("documents", query=[float(x) for x in queries[0]], limit=10).points
    assert_nearest([point.id for point in found], corpus.rows, cosines(corpus.vectors, queries[0]), 1e-6)


def test_uint8_codes_are_stored_exactly(qdrant, corpus, corpus_as, queries):
    # Qdrant Edge silently truncates fractions and values outside of 0..255.
    qdrant.create("bytes", distance="Euclid", datatype="uint8")
    output = corpus_as("qdrant", "--encoding", "uint8")
    codes = {point["id"]: point["vector"] for body in parse_bodies(output) for point in body["points"]}
    assert all(type(code) is int and 0 <= code <= 255 for vector in codes.values() for code in vector)
    for line in split_lines(output):
        qdrant.upsert("bytes", line)
    assert qdrant.count("bytes") == len(corpus.ids)
    matrix = np.array([codes[id] for id in corpus.ids])
    for row in (0, 50, 150):
        assert_nearest(qdrant.search("bytes", matrix[row]), corpus.rows, l2(matrix, matrix[row]))


def test_uint8_codes_preserve_neighbors(corpus, corpus_as):
    codes = {point["id"]: point["vector"] for body in parse_bodies(corpus_as("qdrant", "--encoding", "uint8")) for point in body["points"]}
    matrix = np.array([codes[id] for id in corpus.ids])
    common = 0
    for row in range(len(corpus.ids)):
        exact = np.argsort(-cosines(corpus.vectors, corpus.vectors[row]), kind="stable")[:10]
        common += len(set(exact) & set(np.argsort(-l2(matrix, matrix[row]), kind="stable")[:10]))
    # With a scale per vector, this would be 0.4 for every distance of Qdrant.
    assert common / (10 * len(corpus.ids)) > 0.88


def test_odd_fields_are_accepted(qdrant, odd_field):
    qdrant.create("odd")
    output = odd_field("qdrant")
    if output is None:
        # A payload can contain any JSON.
        pytest.fail(f"{odd_field.key!r} was rejected")
    for line in split_lines(output):
        qdrant.upsert("odd", line)
    [(_, payload, _)] = qdrant.points("odd")
    assert payload[odd_field.key] == pytest.approx(odd_field.value) if isinstance(odd_field.value, (int, float)) else json.dumps(payload[odd_field.key]) == json.dumps(odd_field.value)
