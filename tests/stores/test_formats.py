"""Size limits of request bodies, input formats, and chunking."""

import csv
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import FIELDS, MODEL, ROOT, document_id_of, parse_bodies, point_id, split_lines, tealight, write_jsonl


@pytest.fixture(scope="module")
def many_documents(tmp_path_factory):
    documents = [{"id": n, "text": f"word {n}", "metadata": {"filler": "x" * 300}} for n in range(1100)]
    return write_jsonl(tmp_path_factory.mktemp("many") / "many.jsonl", documents)


@pytest.mark.parametrize("format, rows, max_rows, max_bytes", [
    ("qdrant", "points", None, 32 * 2**20),
    ("pinecone", "vectors", 1000, 2_000_000),
    ("s3-vectors", "vectors", 500, 20 * 2**20),
    ("chroma", "ids", 300, 40 * 2**20),
    ("weaviate", "objects", None, 100 * 2**20),
    ("milvus", "data", None, 64 * 2**20),
    ("turbopuffer", "upsert_rows", None, 256 * 2**20),
])
def test_bodies_respect_limits(many_documents, tmp_path, format, rows, max_rows, max_bytes):
    output = tealight("embed", "--input", many_documents, "--format", format)
    sizes = [len(body[rows]) for body in parse_bodies(output)]
    assert sum(sizes) == 1100 and all(sizes) and max(sizes) <= (max_rows or 1100)
    assert all(len(line) <= max_bytes for line in split_lines(output))
    if max_rows:
        # The number of bodies is minimal.
        assert len(sizes) <= -(-1100 // max_rows) or max(len(line) for line in split_lines(output)) > max_bytes * 0.8
    # One numbered file per body.
    tealight("embed", "--input", many_documents, "--format", format, "-o", tmp_path / f"{format}-{{}}.json")
    files = sorted(os.listdir(tmp_path), key=lambda name: int(name.split("-")[-1][:-5]))
    assert files == [f"{format}-{n}.json" for n in range(1, len(sizes) + 1)]
    assert b"".join((tmp_path / name).read_bytes().rstrip(b"\n") + b"\n" for name in files) == output


def test_bulk_files_have_at_most_10_mib(many_documents, tmp_path):
    tealight("embed", "--input", many_documents, "--format", "opensearch", "-o", tmp_path / "{}.ndjson")
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
def test_unsupported_encoding_or_format_is_rejected(corpus_file, format, encoding):
    message = tealight("embed", "--input", corpus_file, "--format", format, "--encoding", encoding, code=1)
    assert (encoding if format != "nothing" else format) in message and "panicked" not in message


def test_csv_parquet_and_jsonl_give_same_points(tmp_path, documents):
    rows = [(str(d["id"]), d["text"]) for d in documents[:60] if "id" in d]
    with open(tmp_path / "a.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["kind", "text", "id"])
        writer.writerows(["note", text, id] for id, text in rows)
    columns = {"id": [id for id, _ in rows], "text": [text for _, text in rows], "kind": ["note"] * len(rows)}
    pa.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    write_jsonl(tmp_path / "a.jsonl", [{"id": id, "text": text, "metadata": {"kind": "note"}} for id, text in rows])
    read = [parse_bodies(tealight("embed", "--input", tmp_path / f"a.{kind}", "--format", "qdrant")) for kind in ("csv", "parquet", "jsonl")]
    assert read[0] == read[1] == read[2]
    assert [point["id"] for body in read[0] for point in body["points"]] == [point_id(id, 0) for id, _ in rows]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
def test_parquet_values_keep_their_types(tmp_path, compression):
    table = pa.table({
        "id": pa.array([1, 2, 3]), "text": ["one", "two", "three"], "year": pa.array([1999, None, 2001], pa.int32()),
        "ratio": [0.5, 1.5, 2.5], "good": [True, False, None], "tags": [["a"], [], ["b", "c"]], "word": pa.array(["x", "y", "x"]).dictionary_encode(),
    })
    pa.parquet.write_table(table, tmp_path / "t.parquet", compression=compression, row_group_size=2)
    points = [point for body in parse_bodies(tealight("embed", "--input", tmp_path / "t.parquet", "--format", "qdrant")) for point in body["points"]]
    assert [point["id"] for point in points] == [point_id(n, 0) for n in "123"]
    rest = [{key: value for key, value in point["payload"].items() if key not in FIELDS and value is not None} for point in points]
    assert rest[0] == {"year": 1999, "ratio": 0.5, "good": True, "tags": ["a"], "word": "x"}
    assert "year" not in rest[1] and rest[1]["good"] is False and rest[2]["tags"] == ["b", "c"]


@pytest.mark.parametrize("tokens, overlap", [(32, 0), (32, 8), (100, 25)])
def test_long_documents_are_split_into_chunks(tmp_path, tokens, overlap):
    texts = json.loads((ROOT / "tests/goldens/texts.json").read_text())
    text = " ".join(text for text in texts if text.isascii() and 20 < len(text) < 200) + " Grüße aus Köln 🕯 und 世界."
    path = write_jsonl(tmp_path / "long.jsonl", [{"id": "short", "text": "a candle"}, {"id": "long", "text": text, "metadata": {"a": 1}}])
    output = tealight("embed", "--input", path, "--format", "qdrant", "--chunk-tokens", tokens, "--chunk-overlap", overlap)
    points = [point for body in parse_bodies(output) for point in body["points"]]
    short, *chunks = points
    assert short["payload"]["document_id"] == "short" and len(chunks) > 3
    assert [chunk["payload"]["chunk"] for chunk in chunks] == list(range(len(chunks)))
    assert [chunk["id"] for chunk in chunks] == [point_id("long", n) for n in range(len(chunks))]
    assert all(chunk["payload"]["a"] == 1 and chunk["payload"]["model"] == MODEL for chunk in chunks)
    spans = [(chunk["payload"]["start"], chunk["payload"]["end"]) for chunk in chunks]
    assert all(chunk["payload"]["text"] == text[start:end] for chunk, (start, end) in zip(chunks, spans))
    # Only whitespace lies outside the chunks, and chunks overlap if and only if requested.
    assert text[: spans[0][0]].strip() == text[spans[-1][1] :].strip() == ""
    for (_, end), (start, _) in zip(spans, spans[1:]):
        assert (start < end) if overlap else (start >= end and text[end:start].strip() == "")
    # The vector of a chunk is the embedding of its text.
    embedding = json.loads(tealight("embed", "--format", "json", chunks[1]["payload"]["text"]))
    assert np.abs(np.array(embedding, dtype=float).ravel() - chunks[1]["vector"]).max() < 1e-6
    again = tealight("embed", "--input", path, "--format", "qdrant", "--chunk-tokens", tokens, "--chunk-overlap", overlap)
    assert again == output


def test_invalid_metadata_names_document_and_field(tmp_path):
    for documents, words in [
        ([{"id": "a", "text": "x"}, {"id": "bad", "text": "y", "metadata": {"document_id": "z"}}], ["bad", "document_id"]),
        ([{"id": "bad", "text": "y", "metadata": {"vector": 1}}], ["bad", "vector"]),
        ([{"id": "bad", "text": "y", "metadata": {"id": 1}}], ["bad", "id"]),
    ]:
        message = tealight("embed", "--input", write_jsonl(tmp_path / "bad.jsonl", documents), "--format", "opensearch", code=1)
        assert all(word in message for word in words) and "panicked" not in message, message


def test_text_file_is_one_document(tmp_path):
    (tmp_path / "a note.md").write_text("# A note\n\nof one line")
    [body] = parse_bodies(tealight("embed", "--input", tmp_path / "a note.md", "--format", "qdrant"))
    [point] = body["points"]
    payload = point["payload"]
    assert payload["text"].strip() and point["id"] == point_id(payload["document_id"], 0)
    assert payload["document_id"] in ("a note.md", str(tmp_path / "a note.md"), document_id_of({"text": "# A note\n\nof one line"}))
