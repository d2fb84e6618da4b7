"""embed --sink: every point is stored exactly once, in spite of faults."""

import threading
import time

import boto3
import numpy as np
import pytest
import requests
import servers
from conftest import assert_nearest, check_points, cosines, parse_bodies, tealight, write_jsonl
from faults import FAULTS, Proxy, TlsProxy, TruncatingProxy, always, mixed, signature
from test_pgvector import COLUMNS, nearest, points

AWS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret/+", "AWS_SESSION_TOKEN": "token/+=", "AWS_REGION": "eu-west-1"}


def client(name, url):
    return boto3.client(name, endpoint_url=url, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")


class Qdrant:
    key = "sesame"
    # Whether the client must respect Retry-After, which AWS does not send.
    respects_retry_after = True

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
    respects_retry_after = True

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
    respects_retry_after = False
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
    """Objects in the format of Qdrant, so that they can be read like the other sinks."""

    respects_retry_after = False

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
        return [(point["id"], point["payload"], point["vector"]) for line in parse_bodies(body) for point in line["points"]]


SIGNING_NAMES = {"S3": "s3", "S3Vectors": "s3vectors"}


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


def embed_to(sink, file, proxy, **options):
    url, env = sink.arguments(proxy.address)
    return tealight("embed", "--input", file, "--sink", url, env=env, **options)


def check_sink(sink, corpus):
    found = sink.points()
    check_points([(id, payload) for id, payload, _ in found], corpus)
    vectors = {id: vector for id, _, vector in found}
    actual = np.array([vectors[id] for id in corpus.ids], dtype=np.float64)
    # Qdrant normalizes vectors, so they are not bit-identical.
    assert np.abs(actual - corpus.vectors).max() < 1e-6


def test_every_point_is_stored_once(sink, corpus_file, corpus):
    sink.clear()
    for _ in range(2):
        proxy = Proxy(sink.upstream)
        embed_to(sink, corpus_file, proxy)
        assert proxy.injected
        check_sink(sink, corpus)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_does_not_change_result(sink, fault, corpus_file, corpus):
    sink.clear()
    proxy = Proxy(sink.upstream, always(fault))
    embed_to(sink, corpus_file, proxy)
    assert fault in proxy.injected and not (proxy.premature and sink.respects_retry_after)
    check_sink(sink, corpus)


@pytest.mark.parametrize("seed", range(4))
def test_mixed_faults_do_not_change_result(sink, seed, corpus_file, corpus):
    sink.clear()
    proxy = Proxy(sink.upstream, mixed(seed))
    embed_to(sink, corpus_file, proxy)
    assert not (proxy.premature and sink.respects_retry_after)
    check_sink(sink, corpus)


def test_server_that_starts_late_is_retried(sink, corpus_file, corpus):
    sink.clear()
    port, late = servers.free_port(), []
    timer = threading.Timer(2, lambda: late.append(Proxy(sink.upstream, port=port)))
    timer.start()
    url, env = sink.arguments(f"127.0.0.1:{port}")
    tealight("embed", "--input", corpus_file, "--sink", url, env=env)
    assert late and late[0].injected
    check_sink(sink, corpus)


def test_permanent_failure_ends(sink, corpus_file):
    sink.clear()
    proxy = Proxy(sink.upstream, always("500", 10_000))
    start = time.monotonic()
    message = embed_to(sink, corpus_file, proxy, code=1)
    assert "500" in message and "panicked" not in message and 1 < len(proxy.injected) and time.monotonic() - start < 120


def test_missing_target_is_not_retried(sink, corpus_file):
    sink.clear()
    url, env = sink.arguments(Proxy(sink.upstream).address)
    missing = url.replace("tealight", "nothing-here") if "tealight" in url else url.replace("documents", "nothing-here")
    if isinstance(sink, OpenSearch):
        pytest.skip("the first document creates the index")
    start = time.monotonic()
    message = tealight("embed", "--input", corpus_file, "--sink", missing, env=env, code=1)
    assert "404" in message or "NoSuchBucket" in message or "NotFound" in message or "not found" in message.lower(), message
    assert time.monotonic() - start < 20


def test_requests_have_valid_signature(sink, corpus_file, corpus):
    sink.clear()
    service = SIGNING_NAMES.get(type(sink).__name__)
    for name in [service] if service else ["es", "aoss"] if isinstance(sink, OpenSearch) else []:
        proxy = Proxy(sink.upstream, check=signature(name, AWS["AWS_SECRET_ACCESS_KEY"], AWS["AWS_SESSION_TOKEN"]))
        url, env = sink.arguments(proxy.address)
        tealight("embed", "--input", corpus_file, "--sink", url if service else f"{url}?aws={name}", env=AWS | env)
        assert proxy.injected and not proxy.check_errors, proxy.check_errors
        check_sink(sink, corpus)


def test_temporarily_rejected_documents_are_retried(tmp_path, corpus_file, corpus):
    with servers.opensearch() as url:
        sink = OpenSearch(url)
        sink.clear()
        proxy = Proxy(url, always("partial_429"))
        embed_to(sink, corpus_file, proxy)
        assert "partial_429" in proxy.injected
        check_sink(sink, corpus)


def test_permanently_rejected_document_is_named(tmp_path):
    with servers.opensearch() as url:
        sink = OpenSearch(url)
        sink.clear()
        documents = [{"id": f"d{n}", "text": f"word {n}", "metadata": {"year": n}} for n in range(20)]
        documents[7]["metadata"]["year"] = "not a number"
        message = embed_to(sink, write_jsonl(tmp_path / "d.jsonl", documents), Proxy(url), code=1)
        assert "d7" in message and "year" in message, message
        # The other documents are written.
        assert len(sink.points()) == 19


def test_wrong_key_is_not_printed(tmp_path, corpus_file):
    sink = Qdrant(tmp_path)
    sink.clear()
    url, _ = sink.arguments(Proxy(sink.upstream).address)
    message = tealight("embed", "--input", corpus_file, "--sink", url, env={"TEALIGHT_SINK_KEY": "open-says-me"}, code=1)
    assert "401" in message and "open-says-me" not in message


def test_key_is_read_from_secret(tmp_path, corpus_file, corpus, aws):
    arn = client("secretsmanager", aws).create_secret(Name=f"sink-{time.time()}", SecretString=Qdrant.key)["ARN"]
    sink = Qdrant(tmp_path)
    sink.clear()
    url, _ = sink.arguments(Proxy(sink.upstream).address)
    env = AWS | {"TEALIGHT_SINK_SECRET": arn, "AWS_ENDPOINT_URL_SECRETS_MANAGER": aws}
    tealight("embed", "--input", corpus_file, "--sink", url, env=env)
    check_sink(sink, corpus)


def test_s3_objects_are_json_lines_by_default(corpus_file, aws, corpus_as):
    sink = S3(aws)
    sink.clear()
    url, env = sink.arguments(Proxy(aws).address)
    tealight("embed", "--input", corpus_file, "--sink", url, env={name: value for name, value in env.items() if name != "TEALIGHT_SINK_FORMAT"})
    [item] = sink.client.list_objects_v2(Bucket="tealight")["Contents"]
    assert item["Key"].endswith(".jsonl")
    assert parse_bodies(sink.client.get_object(Bucket="tealight", Key=item["Key"])["Body"].read()) == parse_bodies(corpus_as("jsonl", "--chunk-tokens", 254))


@pytest.mark.parametrize("plan", [always("response_lost", 1), always("response_truncated", 1), always("reset_after_half_request", 1), mixed(7)], ids=["response_lost", "response_truncated", "reset_after_half_request", "mixed"])
def test_multipart_upload_is_complete(tmp_path, aws, plan):
    sink = S3(aws)
    sink.clear()
    path = write_jsonl(tmp_path / "many.jsonl", [{"id": n, "text": f"number {n}"} for n in range(2200)])
    proxy = Proxy(aws, plan)
    url, env = sink.arguments(proxy.address)
    tealight("embed", "--input", path, "--sink", url, env={name: value for name, value in env.items() if name != "TEALIGHT_SINK_FORMAT"})
    [item] = sink.client.list_objects_v2(Bucket="tealight")["Contents"]
    assert item["Key"] == "out/here/many.jsonl.jsonl" and item["ETag"].strip('"').endswith("-2") and item["Size"] > 8 << 20
    body = sink.client.get_object(Bucket="tealight", Key=item["Key"])["Body"].read()
    assert [line["document_id"] for line in parse_bodies(body)] == [str(n) for n in range(2200)]


def test_failed_multipart_upload_is_aborted(tmp_path, aws):
    sink = S3(aws)
    sink.clear()
    before = len(sink.client.list_multipart_uploads(Bucket="tealight").get("Uploads", []))
    path = write_jsonl(tmp_path / "many.jsonl", [{"id": n, "text": f"number {n}"} for n in range(2200)])
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


CREDENTIALS = "tealight:pa%20ss%25w%2F%C3%B6%3A1%40"


def check_table(connection, corpus, query):
    check_points(list(points(connection)), corpus)
    assert_nearest(nearest(connection, query), corpus.rows, cosines(corpus.vectors, query), 1e-6)


def test_postgres_stores_every_point_once(table, corpus_file, corpus, queries):
    server, connection = table
    for _ in range(2):
        tealight("embed", "--input", corpus_file, "--sink", f"postgres://{CREDENTIALS}@127.0.0.1:{server.port}/vectors")
        check_table(connection, corpus, queries[0])


def test_postgres_accepts_separate_password(table, corpus_file, corpus, queries):
    server, connection = table
    url = f"postgres://tealight@127.0.0.1:{server.port}/vectors?table=documents&sslmode=prefer"
    tealight("embed", "--input", corpus_file, "--sink", url, env={"TEALIGHT_SINK_KEY": "pa ss%w/ö:1@"})
    check_table(connection, corpus, queries[0])


def test_postgres_supports_md5_password_and_table_option(table, corpus_file, corpus):
    server, connection = table
    tealight("embed", "--input", corpus_file, "--sink", f"postgres://old:old@127.0.0.1:{server.port}/vectors?table=others")
    assert connection.execute("select count(*) from others").fetchone()[0] == len(corpus.ids)
    assert connection.execute("select count(*) from documents").fetchone()[0] == 0


@pytest.mark.parametrize("limits", [[1], [20], [90], [400], [2_000], [100_000], [700_000], [50, 500, 300_000]])
def test_postgres_connection_loss_is_retried(table, corpus_file, corpus, queries, limits):
    server, connection = table
    proxy = TruncatingProxy(server.port, limits)
    tealight("embed", "--input", corpus_file, "--sink", f"postgres://{CREDENTIALS}@127.0.0.1:{proxy.port}/vectors")
    assert proxy.connections > len(limits)
    check_table(connection, corpus, queries[0])


@pytest.mark.parametrize("user, options, words", [
    ("tealight:wrong", "", ["password"]),
    (CREDENTIALS, "?table=nothing", ["nothing"]),
    (CREDENTIALS, "?table=documents%3B%20drop%20table%20others", []),
    (CREDENTIALS, "?sslmode=require", ["TLS", "SSL", "ssl", "tls"]),
])
def test_postgres_error_is_reported_without_password(table, corpus_file, user, options, words):
    server, connection = table
    start = time.monotonic()
    message = tealight("embed", "--input", corpus_file, "--sink", f"postgres://{user}@127.0.0.1:{server.port}/vectors{options}", code=1)
    assert not words or any(word in message for word in words), message
    assert "pa ss" not in message and CREDENTIALS.partition(":")[2] not in message and ":wrong" not in message
    assert time.monotonic() - start < 20 and connection.execute("select count(*) from others").fetchone()[0] == 0


def test_postgres_verifies_certificate(table, tmp_path, corpus_file, corpus, queries):
    server, connection = table
    proxy = TlsProxy(server.port, tmp_path)
    url = f"postgres://{CREDENTIALS}@localhost:{proxy.port}/vectors"
    for mode in ("prefer", "require", "verify-full"):
        tealight("embed", "--input", corpus_file, "--sink", f"{url}?sslmode={mode}&sslrootcert={proxy.authority}")
    check_table(connection, corpus, queries[0])
    for options in ("", "?sslmode=require"):
        assert "certificate" in tealight("embed", "--input", corpus_file, "--sink", url + options, code=1)
    by_address = url.replace("localhost", "127.0.0.1")
    assert "certificate" in tealight("embed", "--input", corpus_file, "--sink", f"{by_address}?sslmode=verify-full&sslrootcert={proxy.authority}", code=1)
    assert "/nowhere" in tealight("embed", "--input", corpus_file, "--sink", f"{url}?sslrootcert=/nowhere", code=1)


def test_postgres_writes_bits_and_ignores_other_columns(table, corpus_file, corpus):
    server, connection = table
    connection.execute(f"drop schema if exists other cascade; create schema other; create table other.bits (n serial not null, {COLUMNS} bit(384))")
    url = f"postgres://old:old@localhost:{server.port}/vectors"
    for _ in range(2):
        tealight("embed", "--input", corpus_file, "--sink", f"{url}?table=other.bits&encoding=binary")
    rows = dict(connection.execute("select id::text, vector::text from other.bits").fetchall())
    assert rows == {id: "".join("01"[int(bit)] for bit in vector > 0) for id, vector in zip(corpus.ids, corpus.vectors)}


def test_postgres_dimension_mismatch_is_not_retried(table, corpus_file):
    server, connection = table
    connection.execute("alter table others alter column vector type vector(3)")
    message = tealight("embed", "--input", corpus_file, "--sink", f"postgres://{CREDENTIALS}@localhost:{server.port}/vectors?table=others", code=1)
    assert "expected 3 dimensions, not 384" in message and message.count("\n") == 1


def test_postgres_waits_for_lock(table, corpus_file, corpus):
    server, connection = table
    with server.connect(dbname="vectors", autocommit=False) as other:
        other.execute("lock table documents")
        threading.Timer(3, other.rollback).start()
        tealight("embed", "--input", corpus_file, "--sink", f"postgres://{CREDENTIALS}@localhost:{server.port}/vectors")
    assert connection.execute("select count(*) from documents").fetchone()[0] == len(corpus.ids)


def test_postgres_rejected_body_is_all_or_nothing(table, tmp_path):
    server, connection = table
    connection.execute("alter table documents add check (text <> 'word 7')")
    path = write_jsonl(tmp_path / "d.jsonl", [{"id": n, "text": f"word {n}"} for n in range(20)])
    message = tealight("embed", "--input", path, "--sink", f"postgres://{CREDENTIALS}@127.0.0.1:{server.port}/vectors", code=1)
    assert "documents" in message and "panicked" not in message
    assert connection.execute("select count(*) from documents").fetchone()[0] in (0, 19)


def test_duplicate_documents_become_one_point(sink, tmp_path):
    sink.clear()
    documents = [{"text": "a candle"}, {"text": "a candle"}, {"id": "a", "text": "one"}, {"id": "a", "text": "two"}]
    embed_to(sink, write_jsonl(tmp_path / "twice.jsonl", documents), Proxy(sink.upstream))
    # A file has both versions, of which the dict keeps the last; a store has only the last.
    found = {id: payload["text"] for id, payload, _ in sink.points()}
    assert sorted(found.values()) == ["a candle", "two"]


def test_empty_input_writes_nothing(sink, tmp_path):
    sink.clear()
    embed_to(sink, write_jsonl(tmp_path / "none.jsonl", []), Proxy(sink.upstream))
