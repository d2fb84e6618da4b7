"""PostgreSQL with pgvector accepts the COPY data and the SQL statements unchanged."""

import json

import pytest
import servers
from conftest import assert_nearest, check_points, cosines, document_id_of, hamming, split_lines, tealight, write_jsonl

COLUMNS = 'id uuid primary key, document_id text, chunk int, text text, "start" int, "end" int, model text, metadata jsonb, vector'


@pytest.fixture(scope="module")
def database():
    with servers.postgres() as server:
        with server.connect() as connection:
            connection.execute("create extension vector")
            yield connection


def create_table(connection, vector_type="vector(384)"):
    connection.execute(f"drop table if exists documents; create table documents ({COLUMNS} {vector_type})")


def copy(connection, rows, table="documents"):
    with connection.cursor() as cursor, cursor.copy(f"copy {table} from stdin") as stream:
        stream.write(rows)


def count(connection):
    return connection.execute("select count(*) from documents").fetchone()[0]


def points(connection):
    rows = connection.execute('select id, document_id, chunk, text, "start", "end", model, metadata from documents').fetchall()
    for id, document_id, chunk, text, start, end, model, metadata in rows:
        payload = {"document_id": document_id, "chunk": chunk, "text": text, "start": start, "end": end, "model": model}
        yield str(id), payload | (metadata or {})


def nearest(connection, query):
    rows = connection.execute("select id from documents order by vector <=> %s, id limit 10", (json.dumps([float(x) for x in query]),))
    return [str(row[0]) for row in rows.fetchall()]


def test_copy_loads_corpus(database, corpus, corpus_as, queries):
    create_table(database)
    copy(database, corpus_as("pgvector"))
    assert count(database) == len(corpus.ids)
    check_points(list(points(database)), corpus)
    for query in queries:
        assert_nearest(nearest(database, query), corpus.rows, cosines(corpus.vectors, query), 1e-6)


def test_statements_are_idempotent(database, corpus, corpus_as, queries):
    create_table(database)
    statements = split_lines(corpus_as("pgvector-sql"))
    assert all(statement.startswith(b"INSERT INTO") and statement.endswith(b";") for statement in statements)
    for _ in range(2):
        for statement in statements:
            database.execute(statement)
        assert count(database) == len(corpus.ids)
    check_points(list(points(database)), corpus)
    for query in queries:
        assert_nearest(nearest(database, query), corpus.rows, cosines(corpus.vectors, query), 1e-6)


@pytest.mark.parametrize("format", ["pgvector", "pgvector-sql"])
def test_binary_vectors_are_bit_strings(database, format, corpus, corpus_as):
    create_table(database, "bit(384)")
    output = corpus_as(format, "--encoding", "binary")
    if format == "pgvector":
        copy(database, output)
    else:
        for line in split_lines(output):
            database.execute(line)
    bits = corpus.vectors > 0
    for row in (0, 50, 150):
        bit_string = "".join("01"[int(bit)] for bit in bits[row])
        rows = database.execute(f"select id from documents order by vector <~> B'{bit_string}', id limit 10").fetchall()
        import numpy as np

        packed = np.packbits(bits, axis=1)
        assert_nearest([str(id) for (id,) in rows], corpus.rows, hamming(packed, packed[row]))


@pytest.mark.parametrize("format", ["pgvector", "pgvector-sql"])
def test_duplicate_documents_become_one_point(database, tmp_path, format):
    create_table(database)
    path = write_jsonl(tmp_path / "twice.jsonl", [{"text": "a candle"}, {"text": "a candle"}, {"id": "a", "text": "one"}, {"id": "a", "text": "two"}])
    output = tealight("embed", "--input", path, "--format", format)
    if format == "pgvector":
        database.execute("create temp table staging (like documents)")
        copy(database, output, "staging")
        assert database.execute("select count(distinct id) from staging").fetchone()[0] == 2
        database.execute("drop table staging")
        return
    for line in split_lines(output):
        database.execute(line)
    assert sorted(text for (text,) in database.execute("select text from documents").fetchall()) == ["a candle", "two"]


@pytest.mark.parametrize("format", ["pgvector", "pgvector-sql"])
@pytest.mark.parametrize("document", [{"id": "odd", "text": "a\0b"}, {"id": "o\0dd", "text": "a"}, {"id": "odd", "text": "a", "metadata": {"odd\0": 1}}])
def test_nul_is_rejected_or_stored(database, tmp_path, format, document):
    create_table(database)
    path = write_jsonl(tmp_path / "nul.jsonl", [document])
    try:
        output = tealight("embed", "--input", path, "--format", format)
    except AssertionError:
        assert "dd" in tealight("embed", "--input", path, "--format", format, code=1)
        return
    copy(database, output) if format == "pgvector" else [database.execute(line) for line in split_lines(output)]
    assert count(database) == 1


@pytest.mark.parametrize("format", ["pgvector", "pgvector-sql"])
def test_odd_fields_are_accepted(database, odd_field, format):
    create_table(database)
    output = odd_field(format)
    if output is None:
        assert odd_field.key == "nul"
        return
    copy(database, output) if format == "pgvector" else [database.execute(line) for line in split_lines(output)]
    [(_, payload)] = points(database)
    if odd_field.key != "nul":
        assert payload[odd_field.key] == pytest.approx(odd_field.value) if isinstance(odd_field.value, (int, float)) else payload[odd_field.key] == odd_field.value


def test_text_is_escaped(database, tmp_path):
    """Quotes, backslashes and line breaks are preserved, regardless of standard_conforming_strings."""
    texts = ["it's", "a\\' b", "'); drop table documents; --", "\\\\", "\\n", "a\nb\r\nc\td", "$$x$$", "\\.", "", "\\N", "E'\\x41'", "%s %% ?1 $1"]
    documents = [{"id": f"{text}#{n}", "text": text or "empty", "metadata": {text or "k": text}} for n, text in enumerate(texts)]
    path = write_jsonl(tmp_path / "texts.jsonl", documents)
    for format in ("pgvector", "pgvector-sql"):
        for conforming in ("on", "off"):
            create_table(database)
            database.execute(f"set standard_conforming_strings = {conforming}; set escape_string_warning = off")
            output = tealight("embed", "--input", path, "--format", format)
            copy(database, output) if format == "pgvector" else [database.execute(line) for line in split_lines(output)]
            actual = {payload["document_id"]: payload for _, payload in points(database)}
            for document in documents:
                payload = actual[document_id_of(document)]
                assert payload["text"] == document["text"], (format, conforming)
                assert all(payload[key] == value for key, value in document["metadata"].items()), (format, conforming)
            database.execute("set standard_conforming_strings = on")
