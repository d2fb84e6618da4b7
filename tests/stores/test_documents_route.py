"""POST /documents makes the same bodies as the command line."""

import json
import subprocess

import numpy as np
import pytest
import requests
from conftest import ROOT, TEALIGHT, bodies, lines, tealight, write
from servers import free_port, wait_for

VECTORS = ("vector", "values", "embeddings", "float32")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    log, port = tmp_path_factory.mktemp("serve") / "log", free_port()
    with log.open("wb") as output:
        process = subprocess.Popen([TEALIGHT, "serve", "--host", "127.0.0.1", "--port", str(port)], cwd=ROOT, stdout=output, stderr=output)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/documents"
    finally:
        process.terminate()
        process.wait(30)


def split(value, vectors):
    """A body without its vectors, which are put aside."""
    if isinstance(value, list):
        return [split(item, vectors) for item in value]
    if not isinstance(value, dict):
        return value
    vectors += [value[key] for key in value if key in VECTORS]
    return {key: split(item, vectors) for key, item in value.items() if key not in VECTORS}


@pytest.mark.parametrize("format", ["qdrant", "pinecone", "s3-vectors", "opensearch", "elasticsearch", "chroma", "weaviate", "milvus", "turbopuffer"])
def test_bodies_are_the_same(url, tmp_path, format):
    documents = [{"id": "a", "text": "a candle"}, {"id": 7, "text": "an octopus", "metadata": {"year": 1999}}, {"text": "no name"}]
    reply = requests.post(url, json={"documents": documents, "format": format}, timeout=60)
    assert reply.status_code == 200, reply.text
    expected = tealight("embed", "--input", write(tmp_path / "d.jsonl", documents), "--format", format)
    mine, theirs = [], []
    assert split(bodies(reply.content), mine) == split(bodies(expected), theirs)
    assert len(mine) == len(theirs) > 0
    for one, other in zip(mine, theirs):
        assert np.abs(np.array(one) - np.array(other)).max() < 1e-6


def test_statements_are_lines(url):
    reply = requests.post(url, json={"documents": [{"id": "a", "text": "it's"}], "format": "pgvector-sql"}, timeout=60)
    [statement] = lines(reply.content)
    assert reply.status_code == 200 and statement.startswith(b"INSERT INTO") and b"it''s" in statement


@pytest.mark.parametrize("body, word", [
    ({"documents": [{"text": "a"}], "format": "nothing"}, "format"),
    ({"documents": [{"text": "a"}], "format": "pinecone", "encoding_format": "int8"}, "int8"),
    ({"documents": [{"id": "bad", "text": "a", "metadata": {"model": 1}}], "format": "qdrant"}, "bad"),
    ({"documents": [{"id": "bad"}], "format": "qdrant"}, "text"),
    ({"format": "qdrant"}, "documents"),
    ({"documents": [{"text": "a"}], "format": "qdrant", "chunk": {"tokens": 8, "overlap": 8}}, "overlap"),
])
def test_mistakes_are_named(url, body, word):
    reply = requests.post(url, json=body, timeout=60)
    assert reply.status_code in (400, 422) and word in json.dumps(reply.json()["error"]), reply.text
