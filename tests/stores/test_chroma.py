"""Chroma's own server takes the bodies at its REST as they are."""

import numpy as np
import pytest
import requests
import servers
from conftest import agree, bodies, check_points, cosines, lines


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    with servers.chroma(tmp_path_factory.mktemp("chroma")) as url:
        yield f"{url}/tenants/default_tenant/databases/default_database/collections"


class Collection:
    def __init__(self, database, name):
        body = {"name": name, "configuration": {"hnsw": {"space": "cosine", "ef_search": 1000}}}
        self.url = f"{database}/{requests.post(database, json=body, timeout=10).json()['id']}"

    def post(self, verb, body):
        data = body if isinstance(body, bytes) else None
        reply = requests.post(f"{self.url}/{verb}", data=data, json=None if data else body, headers={"content-type": "application/json"}, timeout=60)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def count(self):
        return requests.get(f"{self.url}/count", timeout=10).json()


def test_bodies_are_its_upserts(database, corpus, made, queries):
    collection = Collection(database, "documents")
    output = made("chroma")
    assert all(len(body["ids"]) <= 300 for body in bodies(output))
    for _ in range(2):
        for line in lines(output):
            collection.post("upsert", line)
        assert collection.count() == len(corpus.ids)
    got = collection.post("get", {"include": ["metadatas", "documents"]})
    check_points([(id, metadata | {"text": text}) for id, metadata, text in zip(got["ids"], got["metadatas"], got["documents"])], corpus)
    for query in np.asarray(queries, dtype=float):
        found = collection.post("query", {"query_embeddings": [query.tolist()], "n_results": 10})
        agree(found["ids"][0], corpus.rows, cosines(corpus.vectors, query), 1e-6)


def test_no_odd_field_is_refused(database, odd):
    output = odd("chroma")
    if output is not None:
        collection = Collection(database, "odd-" + str(abs(hash(odd.key))))
        for line in lines(output):
            collection.post("upsert", line)
        assert collection.count() == 1
