"""A corpus with its embeddings, and exact nearest neighbors to compare search results with."""

import json
import os
import pathlib
import subprocess
import types
import uuid

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
TEALIGHT = os.environ.get("TEALIGHT_BIN", str(ROOT / "target/release/tealight"))
MODEL = "all-MiniLM-L6-v2"
DIMENSION = 384
QUESTIONS = ["How can I get back into my account?", "an animal with many arms", "Wo ist das nächste Café?",
             "what the weather will be", "a programming language"]
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:tealight:point")
FIELDS = ("document_id", "chunk", "text", "start", "end", "model")
# Metadata that some vector databases do not accept. Each field must be rejected by name or converted to a supported value.
ODD_FIELDS = {
    "null": None, "nested": {"a": {"b": [1, None]}}, "numbers": [1, 2.5], "mixed": [1, "a", True], "lists": [[1], [2]],
    "empty list": [], "empty object": {}, "big": 2**63 + 1, "small": 1e-7, "huge": 1e308, "long": "x" * 5000, "$dollar": 1, "#hash": 1, "": 1,
    "a.b": 1, "größe": 1, "my-key": 1, "_id": "a", "_additional": 1, "$meta": 1, "nul": "a\0b", "quote": "it's \\ \"this\"\t\n",
}


def point_id(document_id, chunk, model=MODEL):
    return str(uuid.uuid5(NAMESPACE, f"{document_id}\n{chunk}\n{model}"))


def document_id_of(document):
    """The id of a document, or a hash of its text if it has none."""
    if "id" in document:
        return str(document["id"])
    import hashlib

    return "sha256:" + hashlib.sha256(document["text"].encode()).hexdigest()[:32]


def tealight(*arguments, env=None, code=0, input=None):
    """Runs tealight. Returns its output, or its standard error if it is expected to fail."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TEALIGHT_"))}
    command = [TEALIGHT, *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, env={**environment, **(env or {})}, input=input, capture_output=True, timeout=300)
    message = result.stderr.decode(errors="replace")
    assert (result.returncode == 0) == (code == 0), f"{command}: {result.returncode}\n{message[-2000:]}"
    return result.stdout if code == 0 else message


def write_jsonl(path, documents):
    path.write_text("".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents))
    return path


def split_lines(output):
    """Lines that end with a newline. Unlike splitlines, it does not split at other line separators within texts."""
    return output.removesuffix(b"\n").split(b"\n")


def parse_bodies(output):
    """Parses one request body per line."""
    return [json.loads(line) for line in split_lines(output)]


def assert_nearest(found, rows, scores, tolerance=0.0):
    """Asserts that the ids found have the best scores, in order. Rows may be swapped if their scores differ by at most `tolerance`."""
    best = np.sort(scores)[::-1][: len(found)]
    actual = np.array([scores[rows[str(id)]] for id in found])
    assert len(found) == len(set(found)) == min(10, len(scores)), found
    assert np.abs(actual - best).max() <= tolerance, list(zip(actual, best))


def cosines(vectors, query):
    vectors, query = np.asarray(vectors, dtype=np.float64), np.asarray(query, dtype=np.float64)
    return vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)


def l2(vectors, query):
    """Negated squared L2 distance, so that larger is nearer."""
    return -((np.asarray(vectors, dtype=np.float64) - np.asarray(query, dtype=np.float64)) ** 2).sum(axis=1)


def hamming(bits, query):
    """Negated Hamming distance, so that larger is nearer. Bytes may be signed or unsigned."""
    bits, query = np.asarray(bits).astype(np.uint8), np.asarray(query).astype(np.uint8)
    return -np.unpackbits(bits ^ query, axis=1).sum(axis=1).astype(np.float64)


@pytest.fixture(scope="session")
def documents():
    texts = json.loads((ROOT / "tests/goldens/texts.json").read_text())
    usable = [text for text in dict.fromkeys(texts) if text.strip() and len(text) <= 300 and "\0" not in text]
    assert len(usable) > 200
    kinds = ["letter", "note", "Grüße, 世界 'quoted' \\ \t \"it\""]
    corpus = []
    for n, text in enumerate(usable):
        metadata = {"number": n, "ratio": n / 7, "even": n % 2 == 0, "kind": kinds[n % 3], "tags": ["all", f"t{n % 5}"]}
        corpus.append({"id": n if n % 10 == 3 else f"doc/{n}", "text": text, "metadata": metadata})
    del corpus[17]["id"], corpus[18]["metadata"]
    return corpus


@pytest.fixture(scope="session")
def corpus_file(documents, tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "docs.jsonl", documents)


@pytest.fixture(scope="session")
def corpus(documents, corpus_file):
    """Point ids, the row of each id, float64 embeddings [points, DIMENSION], and the documents."""
    records = parse_bodies(tealight("embed", "--input", corpus_file, "--format", "jsonl"))
    assert len(records) == len(documents)
    vectors = np.array([record["embedding"] for record in records], dtype=np.float64)
    assert vectors.shape == (len(documents), DIMENSION)
    ids = [point_id(document_id_of(document), 0) for document in documents]
    return types.SimpleNamespace(ids=ids, rows={id: row for row, id in enumerate(ids)}, vectors=vectors, documents=documents)


@pytest.fixture(scope="session")
def queries(tmp_path_factory):
    path = tmp_path_factory.mktemp("queries") / "queries.npy"
    tealight("embed", "--format", "npy", "--output", path, *QUESTIONS)
    matrix = np.load(path)
    assert matrix.shape == (len(QUESTIONS), DIMENSION)
    return matrix


@pytest.fixture(scope="session")
def corpus_as(corpus_file):
    """Embeds the corpus and writes it in a format, with options."""
    def embed(format, *options):
        return tealight("embed", "--input", corpus_file, "--format", format, *options)

    return embed


@pytest.fixture(params=ODD_FIELDS, ids=lambda key: key or "empty name")
def odd_field(request, tmp_path):
    """Embeds a document with an unusual metadata field. The result is None if tealight rejects the field by name."""
    key, value = request.param, ODD_FIELDS[request.param]
    # The other field of the document must not be lost.
    path = write_jsonl(tmp_path / "odd.jsonl", [{"id": "odd", "text": "a candle", "metadata": {key: value, "fine": 1}}])

    def embed(format, *options):
        command = [TEALIGHT, "embed", "--input", str(path), "--format", format, *options]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)
        if result.returncode == 0:
            return result.stdout
        message = result.stderr.decode(errors="replace")
        assert "odd" in message and (key in message or repr(key) in message or json.dumps(key) in message), message
        assert "panicked" not in message, message
        return None

    embed.key, embed.value = key, value
    return embed


def check_points(points, corpus):
    """Asserts that the (id, payload) pairs are exactly those of the corpus, each once, with the fields and metadata of its document."""
    by_id = dict(points)
    assert len(points) == len(by_id) and set(by_id) == set(corpus.ids)
    for id, document in zip(corpus.ids, corpus.documents):
        payload = by_id[id]
        assert payload["document_id"] == document_id_of(document) and (payload["chunk"], payload["model"]) == (0, MODEL)
        assert payload["text"] == document["text"][payload["start"] : payload["end"]], payload
        assert id == point_id(payload["document_id"], payload["chunk"], payload["model"])
        metadata = {key: value for key, value in payload.items() if key not in FIELDS}
        expected = document.get("metadata", {})
        assert set(metadata) == set(expected), (metadata, expected)
        assert all(value == pytest.approx(expected[key], rel=1e-12) if isinstance(value, float) else value == expected[key]
                   for key, value in metadata.items()), (metadata, expected)
