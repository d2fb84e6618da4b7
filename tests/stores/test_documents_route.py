"""POST /documents returns the same bodies as the command line."""

import json
import subprocess

import numpy as np
import pytest
import requests
from conftest import ROOT, TEALIGHT, parse_bodies, split_lines, tealight, write_jsonl
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


def extract_vectors(value, vectors):
    """A body without its vectors, which are appended to `vectors`."""
    if isinstance(value, list):
        return [extract_vectors(item, vectors) for item in value]
    if not isinstance(value, dict):
        return value
    vectors += [value[key] for key in value if key in VECTORS]
    return {key: extract_vectors(item, vectors) for key, item in value.items() if key not in VECTORS}


@pytest.mark.parametrize("format", ["qdrant", "pinecone", "s3-vectors", "opensearch", "elasticsearch", "chroma", "weaviate", "milvus", "turbopuffer"])
def test_bodies_equal_command_line(url, tmp_path, format):
    documents = [{"id": "a", "text": "a candle"}, {"id": 7, "text": "an octopus", "metadata": {"year": 1999}}, {"text": "no id"}]
    response = requests.post(url, json={"documents": documents, "format": format}, timeout=60)
    assert response.status_code == 200, response.text
    expected = tealight("embed", "--input", write_jsonl(tmp_path / "d.jsonl", documents), "--format", format)
    route_vectors, cli_vectors = [], []
    assert extract_vectors(parse_bodies(response.content), route_vectors) == extract_vectors(parse_bodies(expected), cli_vectors)
    assert len(route_vectors) == len(cli_vectors) > 0
    for route_vector, cli_vector in zip(route_vectors, cli_vectors):
        assert np.abs(np.array(route_vector) - np.array(cli_vector)).max() < 1e-6


def test_sql_has_one_statement_per_line(url):
    response = requests.post(url, json={"documents": [{"id": "a", "text": "it's"}], "format": "pgvector-sql"}, timeout=60)
    [statement] = split_lines(response.content)
    assert response.status_code == 200 and statement.startswith(b"INSERT INTO") and b"it''s" in statement


@pytest.mark.parametrize("body, word", [
    ({"documents": [{"text": "a"}], "format": "nothing"}, "format"),
    ({"documents": [{"text": "a"}], "format": "pinecone", "encoding_format": "int8"}, "int8"),
    ({"documents": [{"id": "bad", "text": "a", "metadata": {"model": 1}}], "format": "qdrant"}, "bad"),
    ({"documents": [{"id": "bad"}], "format": "qdrant"}, "text"),
    ({"format": "qdrant"}, "documents"),
    ({"documents": [{"text": "a"}], "format": "qdrant", "chunk": {"tokens": 8, "overlap": 8}}, "overlap"),
])
def test_invalid_request_names_field(url, body, word):
    response = requests.post(url, json=body, timeout=60)
    assert response.status_code in (400, 422) and word in json.dumps(response.json()["error"]), response.text
