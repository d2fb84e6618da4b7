"""Lines for OpenSearch and Elasticsearch, against mappings and checks as OpenSearch has them."""

import json

import numpy as np
import pytest
import requests
import servers
from conftest import agree, check_points, cosines, hamming


@pytest.fixture(scope="module")
def url():
    with servers.opensearch() as url:
        yield url


def create(url, index, dynamic=True, **vector):
    body = {"settings": {"index": {"knn": True}}, "mappings": {"dynamic": dynamic, "properties": {"vector": {"type": "knn_vector", "dimension": 384} | vector}}}
    reply = requests.put(f"{url}/{index}", json=body, timeout=10)
    assert reply.status_code == 200, reply.text


def bulk(url, index, body):
    reply = requests.post(f"{url}/{index}/_bulk?refresh=true", data=body, headers={"content-type": "application/x-ndjson"}, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def everything(url, index):
    reply = requests.post(f"{url}/{index}/_search", json={"size": 10_000}, timeout=60).json()
    return {hit["_id"]: hit["_source"] for hit in reply["hits"]["hits"]}


FLOAT = {"space_type": "cosinesimil", "method": {"name": "hnsw", "engine": "lucene"}}
BYTE = FLOAT | {"data_type": "byte"}
BINARY = {"data_type": "binary", "space_type": "hamming", "method": {"name": "hnsw", "engine": "faiss"}}


@pytest.mark.parametrize("format", ["opensearch", "elasticsearch"])
def test_lines_are_its_bulk(url, format, corpus, made, queries):
    create(url, format, **FLOAT)
    body = made(format)
    assert body.endswith(b"\n")
    for _ in range(2):
        assert not bulk(url, format, body)["errors"]
        assert requests.get(f"{url}/{format}/_count", timeout=10).json()["count"] == len(corpus.ids)
    found = everything(url, format)
    vectors = np.array([found[id].pop("vector") for id in corpus.ids])
    check_points(list(found.items()), corpus)
    assert np.array_equal(vectors.astype(np.float32), corpus.vectors.astype(np.float32))
    agree([corpus.ids[row] for row in np.argsort(-cosines(vectors, queries[0]), kind="stable")[:10]], corpus.rows, cosines(corpus.vectors, queries[0]), 1e-6)


@pytest.mark.parametrize("format", ["opensearch", "elasticsearch"])
@pytest.mark.parametrize("encoding, mapping", [("int8", BYTE), ("binary", BINARY)])
def test_codes_are_signed_bytes(url, format, encoding, mapping, corpus, made):
    index = f"{format}-{encoding}"
    create(url, index, **mapping)
    reply = bulk(url, index, made(format, "--encoding", encoding))
    assert not reply["errors"], reply["items"][0]
    found = everything(url, index)
    matrix = np.array([found[id]["vector"] for id in corpus.ids])
    assert matrix.min() < 0 and matrix.min() >= -128 and matrix.max() <= 127
    if encoding == "binary":
        # As sentence-transformers has them, and as a query comes from the same encoding: bytes less 128.
        assert np.array_equal(matrix, np.packbits(corpus.vectors > 0, axis=1).astype(int) - 128)
        agree([corpus.ids[row] for row in np.argsort(-hamming(matrix, matrix[5]), kind="stable")[:10]], corpus.rows, hamming(matrix, matrix[5]))
    else:
        # Under cosine, whose order the scale of a vector does not change.
        assert np.abs(cosines(matrix, matrix[5]) - cosines(corpus.vectors, corpus.vectors[5])).max() < 0.01


def test_no_odd_field_is_refused(url, odd):
    for format in ("opensearch", "elasticsearch"):
        output = odd(format)
        if output is not None:
            index = f"odd-{format}-{abs(hash(odd.key))}"
            # What kind of field it becomes is up to the mapping.
            create(url, index, dynamic=False, **FLOAT)
            reply = bulk(url, index, output)
            assert not reply["errors"], reply
            [source] = everything(url, index).values()
            assert odd.key not in source or source[odd.key] == odd.value or json.dumps(source[odd.key]) == json.dumps(odd.value)
