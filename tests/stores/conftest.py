"""A corpus, tealight's own vectors of it, and the order that arithmetic gives."""

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
# What one index or another has no place for. Each has to be refused by name, or changed to what the index takes.
ODD = {
    "null": None, "nested": {"a": {"b": [1, None]}}, "numbers": [1, 2.5], "mixed": [1, "a", True], "lists": [[1], [2]],
    "empty list": [], "empty object": {}, "big": 2**63 + 1, "small": 1e-7, "huge": 1e308, "long": "x" * 5000, "$dollar": 1, "#hash": 1, "": 1,
    "a.b": 1, "größe": 1, "my-key": 1, "_id": "a", "_additional": 1, "$meta": 1, "nul": "a\0b", "quote": "it's \\ \"this\"\t\n",
}


def point_id(document_id, chunk, model=MODEL):
    return str(uuid.uuid5(NAMESPACE, f"{document_id}\n{chunk}\n{model}"))


def name_of(document):
    """What a document is called: by its id, or by its text where it has none."""
    if "id" in document:
        return str(document["id"])
    import hashlib

    return "sha256:" + hashlib.sha256(document["text"].encode()).hexdigest()[:32]


def tealight(*arguments, env=None, code=0, input=None):
    """Runs tealight; its output, or what it says on standard error where it has to fail."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TEALIGHT_"))}
    command = [TEALIGHT, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env={**environment, **(env or {})}, input=input, capture_output=True, timeout=300)
    said = done.stderr.decode(errors="replace")
    assert (done.returncode == 0) == (code == 0), f"{command}: {done.returncode}\n{said[-2000:]}"
    return done.stdout if code == 0 else said


def write(path, documents):
    path.write_text("".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents))
    return path


def lines(output):
    """Its lines. A text may hold whatever else Python takes for the end of a line."""
    return output.removesuffix(b"\n").split(b"\n")


def bodies(output):
    """One request body a line."""
    return [json.loads(line) for line in lines(output)]


def agree(found, rows, scores, tolerance=0.0):
    """The ids found are those with the best scores, in their order. Only rows whose scores are that near may change places."""
    best = np.sort(scores)[::-1][: len(found)]
    got = np.array([scores[rows[str(id)]] for id in found])
    assert len(found) == len(set(found)) == min(10, len(scores)), found
    assert np.abs(got - best).max() <= tolerance, list(zip(got, best))


def cosines(vectors, query):
    vectors, query = np.asarray(vectors, dtype=np.float64), np.asarray(query, dtype=np.float64)
    return vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)


def l2(vectors, query):
    """Larger is nearer."""
    return -((np.asarray(vectors, dtype=np.float64) - np.asarray(query, dtype=np.float64)) ** 2).sum(axis=1)


def hamming(bits, query):
    """Larger is nearer; rows of bytes, signed or not."""
    bits, query = np.asarray(bits).astype(np.uint8), np.asarray(query).astype(np.uint8)
    return -np.unpackbits(bits ^ query, axis=1).sum(axis=1).astype(np.float64)


@pytest.fixture(scope="session")
def documents():
    texts = json.loads((ROOT / "tests/goldens/texts.json").read_text())
    kept = [text for text in dict.fromkeys(texts) if text.strip() and len(text) <= 300 and "\0" not in text]
    assert len(kept) > 200
    kinds = ["letter", "note", "Grüße, 世界 'quoted' \\ \t \"it\""]
    made = []
    for n, text in enumerate(kept):
        metadata = {"number": n, "ratio": n / 7, "even": n % 2 == 0, "kind": kinds[n % 3], "tags": ["all", f"t{n % 5}"]}
        made.append({"id": n if n % 10 == 3 else f"doc/{n}", "text": text, "metadata": metadata})
    del made[17]["id"], made[18]["metadata"]
    return made


@pytest.fixture(scope="session")
def file(documents, tmp_path_factory):
    return write(tmp_path_factory.mktemp("corpus") / "docs.jsonl", documents)


@pytest.fixture(scope="session")
def corpus(documents, file):
    """The ids of the points, their rows, and their vectors in float64."""
    records = bodies(tealight("embed", "--input", file, "--format", "jsonl"))
    assert len(records) == len(documents)
    vectors = np.array([record["embedding"] for record in records], dtype=np.float64)
    assert vectors.shape == (len(documents), DIMENSION)
    ids = [point_id(name_of(document), 0) for document in documents]
    return types.SimpleNamespace(ids=ids, rows={id: row for row, id in enumerate(ids)}, vectors=vectors, documents=documents)


@pytest.fixture(scope="session")
def queries(tmp_path_factory):
    path = tmp_path_factory.mktemp("queries") / "queries.npy"
    tealight("embed", "--format", "npy", "--output", path, *QUESTIONS)
    matrix = np.load(path)
    assert matrix.shape == (len(QUESTIONS), DIMENSION)
    return matrix


@pytest.fixture(scope="session")
def made(file):
    """What tealight makes of the corpus: in a format, with options."""
    def make(format, *options):
        return tealight("embed", "--input", file, "--format", format, *options)

    return make


@pytest.fixture(params=ODD, ids=lambda key: key or "no name")
def odd(request, tmp_path):
    """A document with a field that not every index takes, written in a format: None where tealight refuses it by name."""
    key, value = request.param, ODD[request.param]
    # Its neighbours must not be lost with it.
    path = write(tmp_path / "odd.jsonl", [{"id": "odd", "text": "a candle", "metadata": {key: value, "fine": 1}}])

    def make(format, *options):
        command = [TEALIGHT, "embed", "--input", str(path), "--format", format, *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.decode(errors="replace")
        assert "odd" in said and (key in said or repr(key) in said or json.dumps(key) in said), said
        assert "panicked" not in said, said
        return None

    make.key, make.value = key, value
    return make


def check_points(points, corpus):
    """Pairs of id and payload are those of the corpus: every one, once, with what its document says."""
    by_id = dict(points)
    assert len(points) == len(by_id) and set(by_id) == set(corpus.ids)
    for id, document in zip(corpus.ids, corpus.documents):
        payload = by_id[id]
        assert payload["document_id"] == name_of(document) and (payload["chunk"], payload["model"]) == (0, MODEL)
        assert payload["text"] == document["text"][payload["start"] : payload["end"]], payload
        assert id == point_id(payload["document_id"], payload["chunk"], payload["model"])
        rest = {key: value for key, value in payload.items() if key not in FIELDS}
        expected = document.get("metadata", {})
        assert set(rest) == set(expected), (rest, expected)
        assert all(value == pytest.approx(expected[key], rel=1e-12) if isinstance(value, float) else value == expected[key]
                   for key, value in rest.items()), (rest, expected)
