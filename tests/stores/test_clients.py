"""Stores that run only in a cloud: their clients validate the request bodies and send them unchanged."""

import json
import re

import boto3
import numpy as np
import pinecone
import pytest
import turbopuffer
import weaviate.collections.classes.batch
from conftest import check_points, parse_bodies
from servers import Recorder, aws


@pytest.fixture
def pinecone_index():
    server = Recorder({"upsertedCount": 1})
    index = pinecone.Pinecone(api_key="none", host=server.url).Index(host=server.url)
    yield index, server
    server.shutdown()


def test_pinecone_client_sends_bodies_unchanged(pinecone_index, corpus, corpus_as):
    index, server = pinecone_index
    points = []
    for body in parse_bodies(corpus_as("pinecone")):
        server.requests.clear()
        index.upsert(vectors=[dict(vector) for vector in body["vectors"]])
        sent = [vector for _, request in server.requests for vector in request["vectors"]]
        assert {path for path, _ in server.requests} == {"/vectors/upsert"}
        assert sent == body["vectors"]
        points += [(vector["id"], vector["metadata"]) for vector in body["vectors"]]
    check_points(points, corpus)


def test_pinecone_accepts_odd_fields(pinecone_index, odd_field):
    index, server = pinecone_index
    output = odd_field("pinecone")
    if output is not None:
        [body] = parse_bodies(output)
        [vector] = body["vectors"]
        assert None not in vector["metadata"].values() and not any(key.startswith("$") for key in vector["metadata"])
        assert len(json.dumps(vector["metadata"]).encode()) < 40 * 1024
        index.upsert(vectors=[dict(vector)])


@pytest.fixture
def namespace():
    server = Recorder({"rows_affected": 1, "rows_upserted": 1, "message": "", "kind": "", "billing": {"billable_logical_bytes_written": 1}})
    client = turbopuffer.Turbopuffer(api_key="none", base_url=server.url, compression=False)
    yield client.namespace("documents"), server
    server.shutdown()


def test_turbopuffer_client_sends_bodies_unchanged(namespace, corpus, corpus_as):
    space, server = namespace
    points = []
    for body in parse_bodies(corpus_as("turbopuffer")):
        server.requests.clear()
        space.write(**body)
        [(path, sent)] = server.requests
        assert path == "/v2/namespaces/documents"
        # The client encodes the same vectors as base64.
        assert [{k: v for k, v in row.items() if k != "vector"} for row in sent["upsert_rows"]] == [
            {k: v for k, v in row.items() if k != "vector"} for row in body["upsert_rows"]]
        assert sent["distance_metric"] == "cosine_distance"
        points += [(row["id"], {k: v for k, v in row.items() if k not in ("id", "vector")}) for row in body["upsert_rows"]]
    check_points(points, corpus)


def test_turbopuffer_accepts_odd_fields(namespace, odd_field):
    space, _ = namespace
    output = odd_field("turbopuffer")
    if output is not None:
        [body] = parse_bodies(output)
        [row] = body["upsert_rows"]
        assert not any(key == "" or key.startswith("$") for key in row)
        space.write(**body)


def check_weaviate(body):
    """Validates a body with the naming rules of the Weaviate server and the models of its client."""
    assert set(body) == {"objects"}
    for item in body["objects"]:
        assert set(item) == {"class", "id", "vector", "properties"} and re.fullmatch("[A-Z][_0-9A-Za-z]*", item["class"])
        for name in item["properties"]:
            assert re.fullmatch("[_A-Za-z][_0-9A-Za-z]*", name) and name not in ("_additional", "_id", "id", "vector"), name
        weaviate.collections.classes.batch.BatchObject(
            collection=item["class"], uuid=item["id"], vector=item["vector"], properties=item["properties"], index=0)


def test_weaviate_bodies_are_valid(corpus, corpus_as):
    points = []
    for body in parse_bodies(corpus_as("weaviate")):
        check_weaviate(body)
        points += [(item["id"], item["properties"]) for item in body["objects"]]
        assert all(len(item["vector"]) == 384 for item in body["objects"])
    check_points(points, corpus)


def test_weaviate_accepts_odd_fields(odd_field):
    output = odd_field("weaviate")
    if output is not None:
        [body] = parse_bodies(output)
        check_weaviate(body)


@pytest.fixture(scope="module")
def vectors():
    with aws() as url:
        yield boto3.client("s3vectors", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")


def put_vectors(vectors, index, output):
    names = {"vectorBucketName": "tealight", "indexName": index}
    if not vectors.list_vector_buckets()["vectorBuckets"]:
        vectors.create_vector_bucket(vectorBucketName="tealight")
    if index not in [known["indexName"] for known in vectors.list_indexes(vectorBucketName="tealight")["indexes"]]:
        vectors.create_index(**names, dataType="float32", dimension=384, distanceMetric="cosine")
    for body in parse_bodies(output):
        assert set(body) == {"vectors"}
        assert len({vector["key"] for vector in body["vectors"]}) == len(body["vectors"])
        vectors.put_vectors(**names, **body)
    return vectors.list_vectors(**names, returnData=True, returnMetadata=True)["vectors"]


def test_s3_vectors_stores_every_point_once(vectors, corpus, corpus_as):
    output = corpus_as("s3-vectors")
    put_vectors(vectors, "documents", output)
    found = put_vectors(vectors, "documents", output)
    check_points([(vector["key"], vector["metadata"]) for vector in found], corpus)
    by_key = {vector["key"]: vector["data"]["float32"] for vector in found}
    assert np.array_equal(np.array([by_key[id] for id in corpus.ids], dtype=np.float32), corpus.vectors.astype(np.float32))


def test_s3_vectors_accepts_odd_fields(vectors, odd_field):
    output = odd_field("s3-vectors")
    if output is not None:
        [vector] = put_vectors(vectors, f"odd-{abs(hash(odd_field.key))}", output)
        metadata = vector["metadata"]
        assert len(metadata) <= 50 and len(json.dumps(metadata).encode()) <= 40 * 1024
        for value in metadata.values():
            items = value if isinstance(value, list) else [value]
            assert all(isinstance(item, (str, int, float, bool)) for item in items), metadata
