"""PostgreSQL with pgvector takes COPY and SQL as they are."""

import json

import psycopg
import pytest
import servers
from conftest import agree, check_points, cosines, hamming, lines, name_of, tealight, write

COLUMNS = 'id uuid primary key, document_id text, chunk int, text text, "start" int, "end" int, model text, metadata jsonb, vector'


@pytest.fixture(scope="module")
def database():
    with servers.postgres() as server:
        with server.connect() as connection:
            connection.execute("create extension vector")
            yield connection


def table(connection, kind="vector(384)"):
    connection.execute(f"drop table if exists documents; create table documents ({COLUMNS} {kind})")


def copy(connection, rows, into="documents"):
    with connection.cursor() as cursor, cursor.copy(f"copy {into} from stdin") as stream:
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


def test_copy_is_read(database, corpus, made, queries):
    table(database)
    copy(database, made("pgvector"))
    assert count(database) == len(corpus.ids)
    check_points(list(points(database)), corpus)
    for query in queries:
        agree(nearest(database, query), corpus.rows, cosines(corpus.vectors, query), 1e-6)


def test_statements_can_be_said_twice(database, corpus, made, queries):
    table(database)
    statements = lines(made("pgvector-sql"))
    assert all(statement.startswith(b"INSERT INTO") and statement.endswith(b";") for statement in statements)
    for _ in range(2):
        for statement in statements:
            database.execute(statement)
        assert count(database) == len(corpus.ids)
    check_points(list(points(database)), corpus)
    for query in queries:
        agree(nearest(database, query), corpus.rows, cosines(corpus.vectors, query), 1e-6)


@pytest.mark.parametrize("format", ["pgvector", "pgvector-sql"])
def test_bits_are_bits(database, format, corpus, made):
    table(database, "bit(384)")
    output = made(format, "--encoding", "binary")
    if format == "pgvector":
        copy(database, output)
    else:
        for line in lines(output):
            database.execute(line)
    bits = corpus.vectors > 0
    for row in (0, 50, 150):
        written = "".join("01"[int(bit)] for bit in bits[row])
        rows = database.execute(f"select id from documents order by vector <~> B'{written}', id limit 10").fetchall()
        import numpy as np

        packed = np.packbits(bits, axis=1)
        agree([str(id) for (id,) in rows], corpus.rows, hamming(packed, packed[row]))


@pytest.mark.parametrize("format", ["pgvector", "pgvector-sql"])
def test_equal_documents_are_one_point(database, tmp_path, format):
    table(database)
    path = write(tmp_path / "twice.jsonl", [{"text": "a candle"}, {"text": "a candle"}, {"id": "a", "text": "one"}, {"id": "a", "text": "two"}])
    output = tealight("embed", "--input", path, "--format", format)
    if format == "pgvector":
        database.execute("create temp table given (like documents)")
        copy(database, output, "given")
        assert database.execute("select count(distinct id) from given").fetchone()[0] == 2
        database.execute("drop table given")
        return
    for line in lines(output):
        database.execute(line)
    assert sorted(text for (text,) in database.execute("select text from documents").fetchall()) == ["a candle", "two"]


@pytest.mark.parametrize("format", ["pgvector", "pgvector-sql"])
@pytest.mark.parametrize("document", [{"id": "odd", "text": "a\0b"}, {"id": "o\0dd", "text": "a"}, {"id": "odd", "text": "a", "metadata": {"odd\0": 1}}])
def test_nul_has_no_place_in_it(database, tmp_path, format, document):
    table(database)
    path = write(tmp_path / "nul.jsonl", [document])
    try:
        output = tealight("embed", "--input", path, "--format", format)
    except AssertionError:
        assert "dd" in tealight("embed", "--input", path, "--format", format, code=1)
        return
    copy(database, output) if format == "pgvector" else [database.execute(line) for line in lines(output)]
    assert count(database) == 1


@pytest.mark.parametrize("format", ["pgvector", "pgvector-sql"])
def test_no_odd_field_is_refused(database, odd, format):
    table(database)
    output = odd(format)
    if output is None:
        assert odd.key == "nul"
        return
    copy(database, output) if format == "pgvector" else [database.execute(line) for line in lines(output)]
    [(_, payload)] = points(database)
    if odd.key != "nul":
        assert payload[odd.key] == pytest.approx(odd.value) if isinstance(odd.value, (int, float)) else payload[odd.key] == odd.value


def test_text_is_no_sql(database, tmp_path):
    """Quotes, backslashes and ends of lines stay what they are, whatever the server makes of backslashes in a string."""
    texts = ["it's", "a\\' b", "'); drop table documents; --", "\\\\", "\\n", "a\nb\r\nc\td", "$$x$$", "\\.", "", "\\N", "E'\\x41'", "%s %% ?1 $1"]
    documents = [{"id": f"{text}#{n}", "text": text or "empty", "metadata": {text or "k": text}} for n, text in enumerate(texts)]
    path = write(tmp_path / "texts.jsonl", documents)
    for format in ("pgvector", "pgvector-sql"):
        for conforming in ("on", "off"):
            table(database)
            database.execute(f"set standard_conforming_strings = {conforming}; set escape_string_warning = off")
            output = tealight("embed", "--input", path, "--format", format)
            copy(database, output) if format == "pgvector" else [database.execute(line) for line in lines(output)]
            got = {payload["document_id"]: payload for _, payload in points(database)}
            for document in documents:
                payload = got[name_of(document)]
                assert payload["text"] == document["text"], (format, conforming)
                assert all(payload[key] == value for key, value in document["metadata"].items()), (format, conforming)
            database.execute("set standard_conforming_strings = on")
