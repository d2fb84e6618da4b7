"""A Milvus server accepts the request bodies unchanged."""

import math

import numpy as np
import pytest
import requests
import servers
from conftest import assert_nearest, check_points, cosines, split_lines
from pymilvus import DataType, MilvusClient


@pytest.fixture(scope="module")
def milvus(tmp_path_factory):
    with servers.milvus(tmp_path_factory.mktemp("milvus")) as url:
        client = MilvusClient(uri=url)
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=36)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=384)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="COSINE")
        client.create_collection("documents", schema=schema, index_params=index, consistency_level="Strong")
        yield url, client


def post(url, operation, body):
    # The newest server available as a package has version 1 of the REST API, whose bodies are the same.
    response = requests.post(f"{url}/v1/vector/{operation}", data=body, headers={"content-type": "application/json"}, timeout=60).json()
    assert response["code"] == 200, response
    return response["data"]


def all_rows(client):
    return client.query("documents", filter='id != ""', output_fields=["*"], limit=10_000)


def test_bodies_are_valid_upserts(milvus, corpus, corpus_as, queries):
    url, client = milvus
    for _ in range(2):
        for line in split_lines(corpus_as("milvus")):
            post(url, "upsert", line)
        rows = all_rows(client)
        assert len(rows) == len(corpus.ids)
    check_points([(row["id"], {key: value for key, value in row.items() if key not in ("id", "vector")}) for row in rows], corpus)
    for query in np.asarray(queries, dtype=float):
        found = client.search("documents", [query.tolist()], limit=10)[0]
        assert_nearest([hit["id"] for hit in found], corpus.rows, cosines(corpus.vectors, query), 1e-6)


def test_odd_fields_are_accepted(milvus, odd_field):
    url, client = milvus
    output = odd_field("milvus")
    if output is None:
        return
    for line in split_lines(output):
        post(url, "upsert", line)
    [row] = client.query("documents", filter='document_id == "odd"', output_fields=["*"])
    if isinstance(odd_field.value, float):
        # A number without a decimal point would be parsed as an integer.
        assert math.isclose(row[odd_field.key], odd_field.value)
    client.delete("documents", ids=[row["id"]])
