"""LanceDB reads the Arrow stream and merges a second copy without duplicates."""

import io
import json

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import assert_nearest, check_points, cosines, hamming


@pytest.fixture
def database(tmp_path):
    return lancedb.connect(tmp_path)


def load(database, output):
    table = database.create_table("documents", data=pa.ipc.open_stream(output))
    rows = table.count_rows()
    again = pa.ipc.open_stream(output).read_all()
    table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(again)
    assert table.count_rows() == rows
    return table


def points(table):
    for row in table.to_pylist():
        row.pop("vector")
        metadata = json.loads(row.pop("metadata") or "{}")
        yield row.pop("id"), row | metadata


def test_arrow_stream_is_searchable_table(database, corpus, corpus_as, queries):
    table = load(database, corpus_as("arrow"))
    vector = table.schema.field("vector").type
    assert vector.list_size == 384 and vector.value_type == pa.float32()
    assert [table.schema.field(name).type for name in ("chunk", "start", "end")] == [pa.int32()] * 3
    check_points(list(points(table.to_arrow())), corpus)
    for query in queries:
        found = table.search(query, vector_column_name="vector").distance_type("cosine").limit(10).to_list()
        assert_nearest([row["id"] for row in found], corpus.rows, cosines(corpus.vectors, query), 1e-6)


def test_binary_vectors_are_packed_bytes(database, corpus, corpus_as):
    table = load(database, corpus_as("arrow", "--encoding", "binary"))
    bits = {row["id"]: row["vector"] for row in table.to_arrow().to_pylist()}
    assert table.schema.field("vector").type.value_type == pa.uint8()
    matrix = np.array([bits[id] for id in corpus.ids])
    assert np.array_equal(matrix, np.packbits(corpus.vectors > 0, axis=1))
    for row in (0, 50, 150):
        found = table.search(matrix[row].astype(np.uint8), vector_column_name="vector").distance_type("hamming").limit(10).to_list()
        assert_nearest([row["id"] for row in found], corpus.rows, hamming(matrix, matrix[row]))


def test_parquet_equals_arrow(corpus, corpus_as):
    table = pyarrow.parquet.read_table(io.BytesIO(corpus_as("parquet")))
    stream = pa.ipc.open_stream(corpus_as("arrow")).read_all()
    assert table.column_names == stream.column_names
    check_points(list(points(table)), corpus)
    matrix = np.array([row["vector"] for row in table.to_pylist()])
    assert np.array_equal(matrix.astype(np.float32), corpus.vectors.astype(np.float32))


def test_odd_fields_are_accepted(database, odd_field):
    output = odd_field("arrow")
    assert output is not None
    [(_, row)] = points(load(database, output).to_arrow())
    assert row[odd_field.key] == pytest.approx(odd_field.value) if isinstance(odd_field.value, float) else row[odd_field.key] == odd_field.value
