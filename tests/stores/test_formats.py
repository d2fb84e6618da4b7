"""Where bodies end, what is read, and how documents are cut."""

import csv
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import FIELDS, MODEL, ROOT, bodies, lines, name_of, point_id, tealight, write


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    documents = [{"id": n, "text": f"word {n}", "metadata": {"filler": "x" * 300}} for n in range(1100)]
    return write(tmp_path_factory.mktemp("many") / "many.jsonl", documents)


@pytest.mark.parametrize("format, rows, most, bytes", [
    ("qdrant", "points", None, 32 * 2**20),
    ("pinecone", "vectors", 1000, 2_000_000),
    ("s3-vectors", "vectors", 500, 20 * 2**20),
    ("chroma", "ids", 300, 40 * 2**20),
    ("weaviate", "objects", None, 100 * 2**20),
    ("milvus", "data", None, 64 * 2**20),
    ("turbopuffer", "upsert_rows", None, 256 * 2**20),
])
def test_bodies_keep_to_the_limits(many, tmp_path, format, rows, most, bytes):
    output = tealight("embed", "--input", many, "--format", format)
    sizes = [len(body[rows]) for body in bodies(output)]
    assert sum(sizes) == 1100 and all(sizes) and max(sizes) <= (most or 1100)
    assert all(len(line) <= bytes for line in lines(output))
    if most:
        # No more bodies than need be.
        assert len(sizes) <= -(-1100 // most) or max(len(line) for line in lines(output)) > bytes * 0.8
    # A file a body, numbered.
    tealight("embed", "--input", many, "--format", format, "-o", tmp_path / f"{format}-{{}}.json")
    files = sorted(os.listdir(tmp_path), key=lambda name: int(name.split("-")[-1][:-5]))
    assert files == [f"{format}-{n}.json" for n in range(1, len(sizes) + 1)]
    assert b"".join((tmp_path / name).read_bytes().rstrip(b"\n") + b"\n" for name in files) == output


def test_bulk_files_keep_to_ten_megabytes(many, tmp_path):
    tealight("embed", "--input", many, "--format", "opensearch", "-o", tmp_path / "{}.ndjson")
    names = os.listdir(tmp_path)
    count = 0
    for name in names:
        body = (tmp_path / name).read_bytes()
        assert len(body) <= 10 * 2**20 and body.endswith(b"\n")
        rows = body.splitlines()
        assert len(rows) % 2 == 0 and all(set(json.loads(row)) == {"index"} for row in rows[::2])
        count += len(rows)
    assert count == 2200


@pytest.mark.parametrize("format, encoding", [
    ("pinecone", "int8"), ("chroma", "binary"), ("s3-vectors", "uint8"), ("qdrant", "binary"), ("opensearch", "uint8"),
    ("pgvector", "int8"), ("weaviate", "base64"), ("nothing", "float"),
])
def test_what_an_index_does_not_have_is_refused(file, format, encoding):
    said = tealight("embed", "--input", file, "--format", format, "--encoding", encoding, code=1)
    assert (encoding if format != "nothing" else format) in said and "panicked" not in said


def test_all_files_are_read_alike(tmp_path, documents):
    rows = [(str(d["id"]), d["text"]) for d in documents[:60] if "id" in d]
    with open(tmp_path / "a.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["kind", "text", "id"])
        writer.writerows(["note", text, id] for id, text in rows)
    columns = {"id": [id for id, _ in rows], "text": [text for _, text in rows], "kind": ["note"] * len(rows)}
    pa.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    write(tmp_path / "a.jsonl", [{"id": id, "text": text, "metadata": {"kind": "note"}} for id, text in rows])
    read = [bodies(tealight("embed", "--input", tmp_path / f"a.{kind}", "--format", "qdrant")) for kind in ("csv", "parquet", "jsonl")]
    assert read[0] == read[1] == read[2]
    assert [point["id"] for body in read[0] for point in body["points"]] == [point_id(id, 0) for id, _ in rows]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
def test_parquet_has_types(tmp_path, compression):
    table = pa.table({
        "id": pa.array([1, 2, 3]), "text": ["one", "two", "three"], "year": pa.array([1999, None, 2001], pa.int32()),
        "ratio": [0.5, 1.5, 2.5], "good": [True, False, None], "tags": [["a"], [], ["b", "c"]], "word": pa.array(["x", "y", "x"]).dictionary_encode(),
    })
    pa.parquet.write_table(table, tmp_path / "t.parquet", compression=compression, row_group_size=2)
    points = [point for body in bodies(tealight("embed", "--input", tmp_path / "t.parquet", "--format", "qdrant")) for point in body["points"]]
    assert [point["id"] for point in points] == [point_id(n, 0) for n in "123"]
    rest = [{key: value for key, value in point["payload"].items() if key not in FIELDS and value is not None} for point in points]
    assert rest[0] == {"year": 1999, "ratio": 0.5, "good": True, "tags": ["a"], "word": "x"}
    assert "year" not in rest[1] and rest[1]["good"] is False and rest[2]["tags"] == ["b", "c"]


@pytest.mark.parametrize("tokens, overlap", [(32, 0), (32, 8), (100, 25)])
def test_long_documents_are_cut(tmp_path, tokens, overlap):
    texts = json.loads((ROOT / "tests/goldens/texts.json").read_text())
    text = " ".join(text for text in texts if text.isascii() and 20 < len(text) < 200) + " Grüße aus Köln 🕯 und 世界."
    path = write(tmp_path / "long.jsonl", [{"id": "short", "text": "a candle"}, {"id": "long", "text": text, "metadata": {"a": 1}}])
    output = tealight("embed", "--input", path, "--format", "qdrant", "--chunk-tokens", tokens, "--chunk-overlap", overlap)
    points = [point for body in bodies(output) for point in body["points"]]
    short, *chunks = points
    assert short["payload"]["document_id"] == "short" and len(chunks) > 3
    assert [chunk["payload"]["chunk"] for chunk in chunks] == list(range(len(chunks)))
    assert [chunk["id"] for chunk in chunks] == [point_id("long", n) for n in range(len(chunks))]
    assert all(chunk["payload"]["a"] == 1 and chunk["payload"]["model"] == MODEL for chunk in chunks)
    spans = [(chunk["payload"]["start"], chunk["payload"]["end"]) for chunk in chunks]
    assert all(chunk["payload"]["text"] == text[start:end] for chunk, (start, end) in zip(chunks, spans))
    # Nothing but white space is in no chunk, and chunks share something exactly where that is asked for.
    assert text[: spans[0][0]].strip() == text[spans[-1][1] :].strip() == ""
    for (_, end), (start, _) in zip(spans, spans[1:]):
        assert (start < end) if overlap else (start >= end and text[end:start].strip() == "")
    # A chunk's vector is that of its text.
    alone = json.loads(tealight("embed", "--format", "json", chunks[1]["payload"]["text"]))
    assert np.abs(np.array(alone, dtype=float).ravel() - chunks[1]["vector"]).max() < 1e-6
    again = tealight("embed", "--input", path, "--format", "qdrant", "--chunk-tokens", tokens, "--chunk-overlap", overlap)
    assert again == output


def test_what_goes_wrong_names_its_document(tmp_path):
    for documents, words in [
        ([{"id": "a", "text": "x"}, {"id": "bad", "text": "y", "metadata": {"document_id": "z"}}], ["bad", "document_id"]),
        ([{"id": "bad", "text": "y", "metadata": {"vector": 1}}], ["bad", "vector"]),
        ([{"id": "bad", "text": "y", "metadata": {"id": 1}}], ["bad", "id"]),
    ]:
        said = tealight("embed", "--input", write(tmp_path / "bad.jsonl", documents), "--format", "opensearch", code=1)
        assert all(word in said for word in words) and "panicked" not in said, said


def test_text_files_are_documents(tmp_path):
    (tmp_path / "a note.md").write_text("# A note\n\nof one line")
    [body] = bodies(tealight("embed", "--input", tmp_path / "a note.md", "--format", "qdrant"))
    [point] = body["points"]
    payload = point["payload"]
    assert payload["text"].strip() and point["id"] == point_id(payload["document_id"], 0)
    assert payload["document_id"] in ("a note.md", str(tmp_path / "a note.md"), name_of({"text": "# A note\n\nof one line"}))
