"""--sink: every point is in its index, once, whatever happens on the way."""

import json
import threading
import time

import boto3
import numpy as np
import pytest
import requests
import servers
from conftest import agree, bodies, check_points, cosines, tealight, write
from faults import KINDS, Cut, Proxy, Tls, always, mixed, signature
from test_pgvector import COLUMNS, nearest, points

AWS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret/+", "AWS_SESSION_TOKEN": "token/+=", "AWS_REGION": "eu-west-1"}


def client(name, url):
    return boto3.client(name, endpoint_url=url, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")


class Qdrant:
    key = "sesame"
    # What a Retry-After says is kept to. AWS has none of those.
    waits = True

    def __init__(self, folder):
        self.server = servers.Qdrant(folder, key=self.key)
        self.upstream = self.server.url

    def clear(self):
        self.server.create("documents")

    def arguments(self, address):
        return f"qdrant+http://{address}/documents", {"TEALIGHT_SINK_KEY": self.key}

    def points(self):
        return [(id, payload, vector) for id, payload, vector in self.server.points("documents")]


class OpenSearch:
    waits = True

    def __init__(self, url):
        self.upstream = url

    def clear(self):
        requests.delete(f"{self.upstream}/documents", timeout=10)
        mapping = {"vector": {"type": "knn_vector", "dimension": 384, "space_type": "cosinesimil", "method": {"name": "hnsw", "engine": "lucene"}}}
        body = {"settings": {"index": {"knn": True}}, "mappings": {"properties": mapping}}
        assert requests.put(f"{self.upstream}/documents", json=body, timeout=10).status_code == 200

    def arguments(self, address):
        return f"opensearch+http://{address}/documents", {}

    def points(self):
        requests.post(f"{self.upstream}/documents/_refresh", timeout=10)
        hits = requests.post(f"{self.upstream}/documents/_search", json={"size": 10_000}, timeout=60).json()["hits"]["hits"]
        return [(hit["_id"], {k: v for k, v in hit["_source"].items() if k != "vector"}, hit["_source"]["vector"]) for hit in hits]


class S3Vectors:
    waits = False
    names = {"vectorBucketName": "tealight", "indexName": "documents"}

    def __init__(self, url):
        self.upstream, self.client = url, client("s3vectors", url)

    def clear(self):
        if not self.client.list_vector_buckets()["vectorBuckets"]:
            self.client.create_vector_bucket(vectorBucketName="tealight")
        elif self.client.list_indexes(vectorBucketName="tealight")["indexes"]:
            self.client.delete_index(**self.names)
        self.client.create_index(**self.names, dataType="float32", dimension=384, distanceMetric="cosine")

    def arguments(self, address):
        return "s3vectors://tealight/documents", AWS | {"AWS_ENDPOINT_URL_S3VECTORS": f"http://{address}"}

    def points(self):
        found = self.client.list_vectors(**self.names, returnData=True, returnMetadata=True)["vectors"]
        return [(vector["key"], vector["metadata"], vector["data"]["float32"]) for vector in found]


class S3:
    """Its objects are lines for Qdrant here, to be read as the others are."""

    waits = False

    def __init__(self, url):
        self.upstream, self.client = url, client("s3", url)

    def clear(self):
        if "tealight" not in [bucket["Name"] for bucket in self.client.list_buckets()["Buckets"]]:
            self.client.create_bucket(Bucket="tealight", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        for item in self.client.list_objects_v2(Bucket="tealight").get("Contents", []):
            self.client.delete_object(Bucket="tealight", Key=item["Key"])

    def arguments(self, address):
        return "s3://tealight/out/here", AWS | {"AWS_ENDPOINT_URL_S3": f"http://{address}", "TEALIGHT_SINK_FORMAT": "qdrant"}

    def points(self):
        [item] = self.client.list_objects_v2(Bucket="tealight")["Contents"]
        assert item["Key"].startswith("out/here/"), item
        body = self.client.get_object(Bucket="tealight", Key=item["Key"])["Body"].read()
        return [(point["id"], point["payload"], point["vector"]) for line in bodies(body) for point in line["points"]]


SERVICES = {"S3": "s3", "S3Vectors": "s3vectors"}


@pytest.fixture(scope="module")
def aws():
    with servers.aws() as url:
        yield url


@pytest.fixture(scope="module", params=["Qdrant", "OpenSearch", "S3Vectors", "S3"])
def sink(request, tmp_path_factory):
    if request.param == "Qdrant":
        yield Qdrant(tmp_path_factory.mktemp("qdrant"))
    elif request.param == "OpenSearch":
        with servers.opensearch() as url:
            yield OpenSearch(url)
    else:
        yield {"S3Vectors": S3Vectors, "S3": S3}[request.param](request.getfixturevalue("aws"))


def feed(sink, file, proxy, **options):
    url, env = sink.arguments(proxy.address)
    return tealight("embed", "--input", file, "--sink", url, env=env, **options)


def check(sink, corpus):
    found = sink.points()
    check_points([(id, payload) for id, payload, _ in found], corpus)
    vectors = {id: vector for id, _, vector in found}
    got = np.array([vectors[id] for id in corpus.ids], dtype=np.float64)
    # Qdrant keeps them as long as one, whatever comes.
    assert np.abs(got - corpus.vectors).max() < 1e-6


def test_every_point_is_there_once(sink, file, corpus):
    sink.clear()
    for _ in range(2):
        proxy = Proxy(sink.upstream)
        feed(sink, file, proxy)
        assert proxy.done
        check(sink, corpus)


@pytest.mark.parametrize("kind", KINDS)
def test_harm_changes_nothing(sink, kind, file, corpus):
    sink.clear()
    proxy = Proxy(sink.upstream, always(kind))
    feed(sink, file, proxy)
    assert kind in proxy.done and not (proxy.early and sink.waits)
    check(sink, corpus)


@pytest.mark.parametrize("seed", range(4))
def test_harms_together_change_nothing(sink, seed, file, corpus):
    sink.clear()
    proxy = Proxy(sink.upstream, mixed(seed))
    feed(sink, file, proxy)
    assert not (proxy.early and sink.waits)
    check(sink, corpus)


def test_a_server_may_come_late(sink, file, corpus):
    sink.clear()
    port, late = servers.free_port(), []
    timer = threading.Timer(2, lambda: late.append(Proxy(sink.upstream, port=port)))
    timer.start()
    url, env = sink.arguments(f"127.0.0.1:{port}")
    tealight("embed", "--input", file, "--sink", url, env=env)
    assert late and late[0].done
    check(sink, corpus)


def test_what_never_works_ends(sink, file):
    sink.clear()
    proxy = Proxy(sink.upstream, always("500", 10_000))
    began = time.monotonic()
    said = feed(sink, file, proxy, code=1)
    assert "500" in said and "panicked" not in said and 1 < len(proxy.done) and time.monotonic() - began < 120


def test_what_is_not_there_is_not_asked_for_again(sink, file):
    sink.clear()
    url, env = sink.arguments(Proxy(sink.upstream).address)
    wrong = url.replace("tealight", "nothing-here") if "tealight" in url else url.replace("documents", "nothing-here")
    if isinstance(sink, OpenSearch):
        pytest.skip("an index is made by its first document")
    began = time.monotonic()
    said = tealight("embed", "--input", file, "--sink", wrong, env=env, code=1)
    assert "404" in said or "NoSuchBucket" in said or "NotFound" in said or "not found" in said.lower(), said
    assert time.monotonic() - began < 20


def test_requests_are_signed(sink, file, corpus):
    sink.clear()
    service = SERVICES.get(type(sink).__name__)
    for name in [service] if service else ["es", "aoss"] if isinstance(sink, OpenSearch) else []:
        proxy = Proxy(sink.upstream, check=signature(name, AWS["AWS_SECRET_ACCESS_KEY"], AWS["AWS_SESSION_TOKEN"]))
        url, env = sink.arguments(proxy.address)
        tealight("embed", "--input", file, "--sink", url if service else f"{url}?aws={name}", env=AWS | env)
        assert proxy.done and not proxy.wrong, proxy.wrong
        check(sink, corpus)


def test_documents_refused_for_now_are_sent_again(tmp_path, file, corpus):
    with servers.opensearch() as url:
        sink = OpenSearch(url)
        sink.clear()
        proxy = Proxy(url, always("partial"))
        feed(sink, file, proxy)
        assert "partial" in proxy.done
        check(sink, corpus)


def test_a_document_refused_for_good_is_named(tmp_path):
    with servers.opensearch() as url:
        sink = OpenSearch(url)
        sink.clear()
        documents = [{"id": f"d{n}", "text": f"word {n}", "metadata": {"year": n}} for n in range(20)]
        documents[7]["metadata"]["year"] = "no number"
        said = feed(sink, write(tmp_path / "d.jsonl", documents), Proxy(url), code=1)
        assert "d7" in said and "year" in said, said
        # The others are not held back by it.
        assert len(sink.points()) == 19


def test_a_wrong_key_is_not_told(tmp_path, file):
    sink = Qdrant(tmp_path)
    sink.clear()
    url, _ = sink.arguments(Proxy(sink.upstream).address)
    said = tealight("embed", "--input", file, "--sink", url, env={"TEALIGHT_SINK_KEY": "open-says-me"}, code=1)
    assert "401" in said and "open-says-me" not in said


def test_the_key_may_be_a_secret(tmp_path, file, corpus, aws):
    arn = client("secretsmanager", aws).create_secret(Name=f"sink-{time.time()}", SecretString=Qdrant.key)["ARN"]
    sink = Qdrant(tmp_path)
    sink.clear()
    url, _ = sink.arguments(Proxy(sink.upstream).address)
    env = AWS | {"TEALIGHT_SINK_SECRET": arn, "AWS_ENDPOINT_URL_SECRETS_MANAGER": aws}
    tealight("embed", "--input", file, "--sink", url, env=env)
    check(sink, corpus)


def test_objects_in_s3_are_lines_by_default(file, aws, made):
    sink = S3(aws)
    sink.clear()
    url, env = sink.arguments(Proxy(aws).address)
    tealight("embed", "--input", file, "--sink", url, env={name: value for name, value in env.items() if name != "TEALIGHT_SINK_FORMAT"})
    [item] = sink.client.list_objects_v2(Bucket="tealight")["Contents"]
    assert item["Key"].endswith(".jsonl")
    assert bodies(sink.client.get_object(Bucket="tealight", Key=item["Key"])["Body"].read()) == bodies(made("jsonl", "--chunk-tokens", 254))


@pytest.mark.parametrize("plan", [always("lost", 1), always("cut", 1), always("early", 1), mixed(7)], ids=["lost", "cut", "early", "mixed"])
def test_large_objects_are_whole(tmp_path, aws, plan):
    sink = S3(aws)
    sink.clear()
    path = write(tmp_path / "many.jsonl", [{"id": n, "text": f"number {n}"} for n in range(2200)])
    proxy = Proxy(aws, plan)
    url, env = sink.arguments(proxy.address)
    tealight("embed", "--input", path, "--sink", url, env={name: value for name, value in env.items() if name != "TEALIGHT_SINK_FORMAT"})
    [item] = sink.client.list_objects_v2(Bucket="tealight")["Contents"]
    assert item["Key"] == "out/here/many.jsonl.jsonl" and item["ETag"].strip('"').endswith("-2") and item["Size"] > 8 << 20
    body = sink.client.get_object(Bucket="tealight", Key=item["Key"])["Body"].read()
    assert [line["document_id"] for line in bodies(body)] == [str(n) for n in range(2200)]


def test_large_objects_leave_nothing_where_they_fail(tmp_path, aws):
    sink = S3(aws)
    sink.clear()
    before = len(sink.client.list_multipart_uploads(Bucket="tealight").get("Uploads", []))
    path = write(tmp_path / "many.jsonl", [{"id": n, "text": f"number {n}"} for n in range(2200)])
    proxy = Proxy(aws, lambda identity: ["500"] * 100 if "partNumber=2" in identity else [])
    url, env = sink.arguments(proxy.address)
    assert "500" in tealight("embed", "--input", path, "--sink", url, env=env, code=1)
    assert "Contents" not in sink.client.list_objects_v2(Bucket="tealight")
    assert len(sink.client.list_multipart_uploads(Bucket="tealight").get("Uploads", [])) == before


@pytest.fixture(scope="module")
def postgres():
    with servers.postgres() as server:
        with server.connect() as connection:
            connection.execute("create role tealight login password 'pa ss%w/ö:1@'")
            connection.execute("create database vectors owner tealight")
            connection.execute("set password_encryption = 'md5'; create role old login superuser password 'old'")
        with server.connect(dbname="vectors") as connection:
            connection.execute("create extension vector")
            yield server, connection


@pytest.fixture
def table(postgres):
    server, connection = postgres
    connection.execute(f"drop table if exists documents, others; create table documents ({COLUMNS} vector(384))")
    connection.execute("create table others (like documents including all); alter table documents owner to tealight; alter table others owner to tealight")
    return server, connection


SAID = "tealight:pa%20ss%25w%2F%C3%B6%3A1%40"


def held(connection, corpus, query):
    check_points(list(points(connection)), corpus)
    agree(nearest(connection, query), corpus.rows, cosines(corpus.vectors, query), 1e-6)


def test_postgres_has_every_point_once(table, file, corpus, queries):
    server, connection = table
    for _ in range(2):
        tealight("embed", "--input", file, "--sink", f"postgres://{SAID}@127.0.0.1:{server.port}/vectors")
        held(connection, corpus, queries[0])


def test_postgres_takes_its_password_apart(table, file, corpus, queries):
    server, connection = table
    url = f"postgres://tealight@127.0.0.1:{server.port}/vectors?table=documents&sslmode=prefer"
    tealight("embed", "--input", file, "--sink", url, env={"TEALIGHT_SINK_KEY": "pa ss%w/ö:1@"})
    held(connection, corpus, queries[0])


def test_postgres_knows_older_passwords_and_other_tables(table, file, corpus):
    server, connection = table
    tealight("embed", "--input", file, "--sink", f"postgres://old:old@127.0.0.1:{server.port}/vectors?table=others")
    assert connection.execute("select count(*) from others").fetchone()[0] == len(corpus.ids)
    assert connection.execute("select count(*) from documents").fetchone()[0] == 0


@pytest.mark.parametrize("limits", [[1], [20], [90], [400], [2_000], [100_000], [700_000], [50, 500, 300_000]])
def test_postgres_may_lose_the_connection(table, file, corpus, queries, limits):
    server, connection = table
    proxy = Cut(server.port, limits)
    tealight("embed", "--input", file, "--sink", f"postgres://{SAID}@127.0.0.1:{proxy.port}/vectors")
    assert proxy.connections > len(limits)
    held(connection, corpus, queries[0])


@pytest.mark.parametrize("user, options, words", [
    ("tealight:wrong", "", ["password"]),
    (SAID, "?table=nothing", ["nothing"]),
    (SAID, "?table=documents%3B%20drop%20table%20others", []),
    (SAID, "?sslmode=require", ["TLS", "SSL", "ssl", "tls"]),
])
def test_postgres_says_no(table, file, user, options, words):
    server, connection = table
    began = time.monotonic()
    said = tealight("embed", "--input", file, "--sink", f"postgres://{user}@127.0.0.1:{server.port}/vectors{options}", code=1)
    assert not words or any(word in said for word in words), said
    assert "pa ss" not in said and SAID.partition(":")[2] not in said and ":wrong" not in said
    assert time.monotonic() - began < 20 and connection.execute("select count(*) from others").fetchone()[0] == 0


def test_postgres_is_encrypted_for_a_server_that_is_known(table, tmp_path, file, corpus, queries):
    server, connection = table
    proxy = Tls(server.port, tmp_path)
    url = f"postgres://{SAID}@localhost:{proxy.port}/vectors"
    for mode in ("prefer", "require", "verify-full"):
        tealight("embed", "--input", file, "--sink", f"{url}?sslmode={mode}&sslrootcert={proxy.authority}")
    held(connection, corpus, queries[0])
    for options in ("", "?sslmode=require"):
        assert "certificate" in tealight("embed", "--input", file, "--sink", url + options, code=1)
    by_address = url.replace("localhost", "127.0.0.1")
    assert "certificate" in tealight("embed", "--input", file, "--sink", f"{by_address}?sslmode=verify-full&sslrootcert={proxy.authority}", code=1)
    assert "/nowhere" in tealight("embed", "--input", file, "--sink", f"{url}?sslrootcert=/nowhere", code=1)


def test_postgres_takes_bits_and_columns_of_others(table, file, corpus):
    server, connection = table
    connection.execute(f"drop schema if exists other cascade; create schema other; create table other.bits (n serial not null, {COLUMNS} bit(384))")
    url = f"postgres://old:old@localhost:{server.port}/vectors"
    for _ in range(2):
        tealight("embed", "--input", file, "--sink", f"{url}?table=other.bits&encoding=binary")
    rows = dict(connection.execute("select id::text, vector::text from other.bits").fetchall())
    assert rows == {id: "".join("01"[int(bit)] for bit in vector > 0) for id, vector in zip(corpus.ids, corpus.vectors)}


def test_postgres_with_vectors_of_another_length_is_given_up(table, file):
    server, connection = table
    connection.execute("alter table others alter column vector type vector(3)")
    said = tealight("embed", "--input", file, "--sink", f"postgres://{SAID}@localhost:{server.port}/vectors?table=others", code=1)
    assert "expected 3 dimensions, not 384" in said and said.count("\n") == 1


def test_postgres_that_is_locked_is_not_waited_for_for_ever(table, file, corpus):
    server, connection = table
    with server.connect(dbname="vectors", autocommit=False) as other:
        other.execute("lock table documents")
        threading.Timer(3, other.rollback).start()
        tealight("embed", "--input", file, "--sink", f"postgres://{SAID}@localhost:{server.port}/vectors")
    assert connection.execute("select count(*) from documents").fetchone()[0] == len(corpus.ids)


def test_postgres_keeps_all_or_nothing_of_a_body_it_refuses(table, tmp_path):
    server, connection = table
    connection.execute("alter table documents add check (text <> 'word 7')")
    path = write(tmp_path / "d.jsonl", [{"id": n, "text": f"word {n}"} for n in range(20)])
    said = tealight("embed", "--input", path, "--sink", f"postgres://{SAID}@127.0.0.1:{server.port}/vectors", code=1)
    assert "documents" in said and "panicked" not in said
    assert connection.execute("select count(*) from documents").fetchone()[0] in (0, 19)


def test_equal_documents_are_one_point_everywhere(sink, tmp_path):
    sink.clear()
    documents = [{"text": "a candle"}, {"text": "a candle"}, {"id": "a", "text": "one"}, {"id": "a", "text": "two"}]
    feed(sink, write(tmp_path / "twice.jsonl", documents), Proxy(sink.upstream))
    # A file keeps what it is told; an index has the last.
    found = {id: payload["text"] for id, payload, _ in sink.points()}
    assert sorted(found.values()) == ["a candle", "two"]


def test_nothing_is_nothing(sink, tmp_path):
    sink.clear()
    feed(sink, write(tmp_path / "none.jsonl", []), Proxy(sink.upstream))
