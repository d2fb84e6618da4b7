"""A Chroma server accepts the request bodies unchanged."""

import numpy as np
import pytest
import requests
import servers
from conftest import assert_nearest, check_points, cosines, parse_bodies, split_lines


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    with servers.chroma(tmp_path_factory.mktemp("chroma")) as url:
        yield f"{url}/tenants/default_tenant/databases/default_database/collections"


class Collection:
    def __init__(self, database, name):
        body = {"name": name, "configuration": {"hnsw": {"space": "cosine", "ef_search": 1000}}}
        self.url = f"{database}/{requests.post(database, json=body, timeout=10).json()['id']}"

    def post(self, operation, body):
        data = body if isinstance(body, bytes) else None
        response = requests.post(f"{self.url}/{operation}", data=data, json=None if data else body, headers={"content-type": "application/json"}, timeout=60)
        assert response.status_code == 200, response.text
        return response.json()

    def count(self):
        return requests.get(f"{self.url}/count", timeout=10).json()


def test_bodies_are_valid_upserts(database, corpus, corpus_as, queries):
    collection = Collection(database, "documents")
    output = corpus_as("chroma")
    assert all(len(body["ids"]) <= 300 for body in parse_bodies(output))
    for _ in range(2):
        for line in split_lines(output):
            collection.post("upsert", line)
        assert collection.count() == len(corpus.ids)
    actual = collection.post("get", {"include": ["metadatas", "documents"]})
    check_points([(id, metadata | {"text": text}) for id, metadata, text in zip(actual["ids"], actual["metadatas"], actual["documents"])], corpus)
    for query in np.asarray(queries, dtype=float):
        found = collection.post("query", {"query_embeddings": [query.tolist()], "n_results": 10})
        assert_nearest(found["ids"][0], corpus.rows, cosines(corpus.vectors, query), 1e-6)


def test_odd_fields_are_accepted(database, odd_field):
    output = odd_field("chroma")
    if output is not None:
        collection = Collection(database, "odd-" + str(abs(hash(odd_field.key))))
        for line in split_lines(output):
            collection.post("upsert", line)
        assert collection.count() == 1
