"""_bulk bodies for OpenSearch and Elasticsearch, tested with the mappings and validation of OpenSearch."""

import json

import numpy as np
import pytest
import requests
import servers
from conftest import assert_nearest, check_points, cosines, hamming


@pytest.fixture(scope="module")
def url():
    with servers.opensearch() as url:
        yield url


def create(url, index, dynamic=True, **vector):
    body = {"settings": {"index": {"knn": True}}, "mappings": {"dynamic": dynamic, "properties": {"vector": {"type": "knn_vector", "dimension": 384} | vector}}}
    response = requests.put(f"{url}/{index}", json=body, timeout=10)
    assert response.status_code == 200, response.text


def bulk(url, index, body):
    response = requests.post(f"{url}/{index}/_bulk?refresh=true", data=body, headers={"content-type": "application/x-ndjson"}, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def all_sources(url, index):
    response = requests.post(f"{url}/{index}/_search", json={"size": 10_000}, timeout=60).json()
    return {hit["_id"]: hit["_source"] for hit in response["hits"]["hits"]}


FLOAT = {"space_type": "cosinesimil", "method": {"name": "hnsw", "engine": "lucene"}}
BYTE = FLOAT | {"data_type": "byte"}
BINARY = {"data_type": "binary", "space_type": "hamming", "method": {"name": "hnsw", "engine": "faiss"}}


@pytest.mark.parametrize("format", ["opensearch", "elasticsearch"])
def test_lines_are_valid_bulk_request(url, format, corpus, corpus_as, queries):
    create(url, format, **FLOAT)
    body = corpus_as(format)
    assert body.endswith(b"\n")
    for _ in range(2):
        assert not bulk(url, format, body)["errors"]
        assert requests.get(f"{url}/{format}/_count", timeout=10).json()["count"] == len(corpus.ids)
    found = all_sources(url, format)
    vectors = np.array([found[id].pop("vector") for id in corpus.ids])
    check_points(list(found.items()), corpus)
    assert np.array_equal(vectors.astype(np.float32), corpus.vectors.astype(np.float32))
    assert_nearest([corpus.ids[row] for row in np.argsort(-cosines(vectors, queries[0]), kind="stable")[:10]], corpus.rows, cosines(corpus.vectors, queries[0]), 1e-6)


@pytest.mark.parametrize("format", ["opensearch", "elasticsearch"])
@pytest.mark.parametrize("encoding, mapping", [("int8", BYTE), ("binary", BINARY)])
def test_int8_and_binary_codes_are_signed_bytes(url, format, encoding, mapping, corpus, corpus_as):
    index = f"{format}-{encoding}"
    create(url, index, **mapping)
    response = bulk(url, index, corpus_as(format, "--encoding", encoding))
    assert not response["errors"], response["items"][0]
    found = all_sources(url, index)
    matrix = np.array([found[id]["vector"] for id in corpus.ids])
    assert matrix.min() < 0 and matrix.min() >= -128 and matrix.max() <= 127
    if encoding == "binary":
        # Packed bits minus 128, as in sentence-transformers; queries use the same encoding.
        assert np.array_equal(matrix, np.packbits(corpus.vectors > 0, axis=1).astype(int) - 128)
        assert_nearest([corpus.ids[row] for row in np.argsort(-hamming(matrix, matrix[5]), kind="stable")[:10]], corpus.rows, hamming(matrix, matrix[5]))
    else:
        # Cosine similarity does not depend on the scale of a vector.
        assert np.abs(cosines(matrix, matrix[5]) - cosines(corpus.vectors, corpus.vectors[5])).max() < 0.01


def test_odd_fields_are_accepted(url, odd_field):
    for format in ("opensearch", "elasticsearch"):
        output = odd_field(format)
        if output is not None:
            index = f"odd-{format}-{abs(hash(odd_field.key))}"
            # The mapping determines the type of the field.
            create(url, index, dynamic=False, **FLOAT)
            response = bulk(url, index, output)
            assert not response["errors"], response
            [source] = all_sources(url, index).values()
            assert odd_field.key not in source or source[odd_field.key] == odd_field.value or json.dumps(source[odd_field.key]) == json.dumps(odd_field.value)
