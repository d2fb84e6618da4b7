"""Milvus takes the bodies at its REST as they are."""

import math

import numpy as np
import pytest
import requests
import servers
from conftest import agree, check_points, cosines, lines
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


def post(url, verb, body):
    # The newest server to be had as a package has the first version of the REST, whose bodies are the same.
    reply = requests.post(f"{url}/v1/vector/{verb}", data=body, headers={"content-type": "application/json"}, timeout=60).json()
    assert reply["code"] == 200, reply
    return reply["data"]


def everything(client):
    return client.query("documents", filter='id != ""', output_fields=["*"], limit=10_000)


def test_bodies_are_its_upserts(milvus, corpus, made, queries):
    url, client = milvus
    for _ in range(2):
        for line in lines(made("milvus")):
            post(url, "upsert", line)
        rows = everything(client)
        assert len(rows) == len(corpus.ids)
    check_points([(row["id"], {key: value for key, value in row.items() if key not in ("id", "vector")}) for row in rows], corpus)
    for query in np.asarray(queries, dtype=float):
        found = client.search("documents", [query.tolist()], limit=10)[0]
        agree([hit["id"] for hit in found], corpus.rows, cosines(corpus.vectors, query), 1e-6)


def test_no_odd_field_is_refused(milvus, odd):
    url, client = milvus
    output = odd("milvus")
    if output is None:
        return
    for line in lines(output):
        post(url, "upsert", line)
    [row] = client.query("documents", filter='document_id == "odd"', output_fields=["*"])
    if isinstance(odd.value, float):
        # A number without a point would be read as an integer.
        assert math.isclose(row[odd.key], odd.value)
    client.delete("documents", ids=[row["id"]])
