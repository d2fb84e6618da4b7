"""Document events of the Lambda function: kills, timeouts and redeliveries do not change the final content of the sink."""

import io
import json
import os
import random
import subprocess
import time
import urllib.parse
import uuid

import boto3
import pyarrow
import pyarrow.parquet
import pytest
import servers
from conftest import ROOT
from function import EventSourceMapping, Function, InvocationFailed, Killed
from test_pgvector import COLUMNS

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-1"}
INPUTS = "documents-in"
# Enough documents for a process to be killed while it embeds them.
DOCUMENTS = 400


def text(number):
    words = random.Random(number).choices("a candle burns low while the wind outside turns every page of an old book".split(), k=60)
    return f"{number}: {' '.join(words)}"


def json_lines(numbers):
    return "".join(json.dumps({"id": f"d{n}", "text": text(n), "metadata": {"n": n}}) + "\n" for n in numbers).encode()


def parquet(numbers):
    numbers = list(numbers)
    # A large column before the texts, so that the texts of different row groups are far apart in the file.
    filler = [random.Random(n).randbytes(20_000).hex() for n in numbers]
    table = {"filler": filler, "id": [f"p{n}" for n in numbers], "text": [text(n) for n in numbers], "n": numbers}
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(table), file, compression="snappy", row_group_size=40, use_dictionary=False)
    return file.getvalue()


OBJECTS = {
    "in/lines of +ü.jsonl": json_lines(range(DOCUMENTS)) + b"poison\n" + json_lines([DOCUMENTS]),
    "in/table.csv": ("id,text,n\n" + "".join(f'c{n},"{text(n)}",{n}\n' for n in range(50))).encode(),
    "in/note.md": "\n\n".join(text(n) for n in range(40)).encode(),
    "in/rows.parquet": parquet(range(100)),
    "in/empty.jsonl": b"",
}


@pytest.fixture(scope="module")
def aws():
    with servers.aws() as url:
        yield url


@pytest.fixture(scope="module")
def database():
    with servers.postgres() as server:
        with server.connect() as connection:
            connection.execute("create extension vector")
            yield server, connection


def client(name, url):
    return boto3.client(name, endpoint_url=url, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")


class PostgresSink:
    """Points in a table of PostgreSQL."""

    def __init__(self, database):
        self.server, self.connection = database

    def clear(self):
        self.connection.execute(f"drop table if exists documents; create table documents ({COLUMNS} vector(384))")

    def env(self, url):
        sink = f"postgres://postgres@127.0.0.1:{self.server.port}/postgres?table=documents&sslmode=disable"
        return CREDENTIALS | {"AWS_ENDPOINT_URL": url, "TEALIGHT_SINK": sink}

    def points(self):
        rows = self.connection.execute('select id, document_id, chunk, text, "start", "end", model, metadata, vector::text from documents')
        return {str(row[0]): row[1:] for row in rows.fetchall()}


class S3Sink:
    """Points in objects of a bucket."""

    def __init__(self, s3):
        self.s3 = s3
        s3.create_bucket(Bucket="points-out", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    def clear(self):
        for item in self.s3.list_objects_v2(Bucket="points-out").get("Contents", []):
            self.s3.delete_object(Bucket="points-out", Key=item["Key"])

    def env(self, url):
        return CREDENTIALS | {"AWS_ENDPOINT_URL": url, "TEALIGHT_SINK": "s3://points-out/here"}

    def points(self):
        items = self.s3.list_objects_v2(Bucket="points-out").get("Contents", [])
        bodies = {item["Key"]: self.s3.get_object(Bucket="points-out", Key=item["Key"])["Body"].read() for item in items}
        # Objects of messages are named by message id, which differs between runs, so their document ids identify them.
        ids = {key: " ".join(json.loads(line)["document_id"] for line in body.decode().splitlines()) for key, body in bodies.items()}
        names = {key: key if key.startswith("here/in/") else ids[key] for key in bodies}
        assert len(set(names.values())) == len(bodies), "more than one object for a message"
        return {names[key]: body for key, body in bodies.items()}


class Ingestion:
    """A bucket of documents, a queue that receives its notifications, the function, and its sink."""

    def __init__(self, url, sink):
        self.url, self.sink = url, sink
        self.s3, self.sqs = client("s3", url), client("sqs", url)
        self.function = Function(sink.env(url))

    def upload(self):
        self.sink.clear()
        self.queue = self.sqs.create_queue(QueueName=f"documents-{uuid.uuid4()}")["QueueUrl"]
        self.mapping = EventSourceMapping(self.sqs, self.queue, self.function)
        for key, body in OBJECTS.items():
            etag = self.s3.put_object(Bucket=INPUTS, Key=key, Body=body)["ETag"]
            self.send({"Records": [notification(key, etag, len(body))]})
        for n in range(3):
            self.send({"id": f"m{n}", "text": text(n)})

    def send(self, body, **options):
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=body if isinstance(body, str) else json.dumps(body), **options)

    def drain(self):
        while (failed := self.mapping.process_batch()) is not None:
            assert not failed, failed


def notification(key, etag, size):
    escaped = urllib.parse.quote_plus(key, safe="/")
    record = {"bucket": {"name": INPUTS, "arn": f"arn:aws:s3:::{INPUTS}"}, "object": {"key": escaped, "size": size, "eTag": etag.strip('"'), "sequencer": "00"}}
    return {"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-west-1", "eventName": "ObjectCreated:Put", "s3": record}


@pytest.fixture(scope="module", params=["postgres", "s3"])
def ingestion(request, aws, database):
    s3 = client("s3", aws)
    if INPUTS not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=INPUTS, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    ingestion = Ingestion(aws, PostgresSink(database) if request.param == "postgres" else S3Sink(s3))
    yield ingestion
    ingestion.function.stop()


@pytest.fixture(scope="module")
def expected_points(ingestion):
    ingestion.upload()
    # Start-up is not part of the measured time.
    ingestion.function.invoke({"input": "warm"})
    start = time.monotonic()
    ingestion.drain()
    ingestion.seconds = time.monotonic() - start
    return ingestion.sink.points()


def count_documents(points):
    """The number of documents with points from JSON Lines, CSV, Parquet, messages and text objects."""
    ids = []
    for value in points.values():
        ids += [value[0]] if isinstance(value, tuple) else [json.loads(line)["document_id"] for line in value.decode().splitlines()]
    count = lambda prefix: len({id for id in ids if id.startswith(prefix)})
    return count("d"), count("c"), count("p"), count("m"), count("s3://")


def test_all_documents_are_written(expected_points):
    assert count_documents(expected_points) == (DOCUMENTS + 1, 50, 100, 3, 1)


# Each seed sends SIGKILL at different times. TEALIGHT_KILLS sets the number of seeds.
@pytest.mark.parametrize("seed", range(int(os.environ.get("TEALIGHT_KILLS", "2"))))
def test_kill_does_not_change_result(ingestion, expected_points, seed):
    rng, kills, seconds = random.Random(seed), 0, ingestion.seconds
    while not kills:
        # Repeats with shorter times if all work was done before the first kill.
        ingestion.upload()
        for _ in range(6):
            try:
                if ingestion.mapping.process_batch(kill_after=rng.uniform(0.01, seconds)) is None:
                    break
            except Killed:
                kills += 1
        seconds /= 2
    ingestion.drain()
    assert ingestion.sink.points() == expected_points


def test_timeout_returns_messages_without_loss(ingestion, expected_points):
    ingestion.upload()
    returned = 0
    for seconds in [1, 1.5, 2, 2.5, 3]:
        try:
            returned += len(ingestion.mapping.process_batch(seconds=seconds) or [])
        except InvocationFailed as error:
            # On a busy machine, even the response can miss the deadline; then all messages return to the queue.
            assert error.args[0] == "timeout"
    ingestion.drain()
    assert returned and ingestion.sink.points() == expected_points


def test_redelivered_messages_do_not_change_result(ingestion, expected_points):
    ingestion.upload()
    key, body = next(iter(OBJECTS.items()))
    etag = ingestion.s3.head_object(Bucket=INPUTS, Key=key)["ETag"]
    ingestion.send({"Records": [notification(key, etag, len(body))] * 2})
    ingestion.drain()
    assert ingestion.sink.points() == expected_points


def test_replaced_object_is_written_in_new_version(ingestion, expected_points):
    ingestion.upload()
    key = "in/lines of +ü.jsonl"
    ingestion.s3.put_object(Bucket=INPUTS, Key=key, Body=json_lines(range(1000, 1010)))
    ingestion.drain()
    assert count_documents(ingestion.sink.points()) == (10, 50, 100, 3, 1)
    ingestion.s3.delete_object(Bucket=INPUTS, Key=key)


def test_direct_notification_reports_documents_and_failures(ingestion):
    ingestion.upload()
    objects = [notification(key, ingestion.s3.head_object(Bucket=INPUTS, Key=key)["ETag"], len(body)) for key, body in OBJECTS.items()]
    response = ingestion.function.invoke({"Records": objects})
    assert (response["documents"], response["failures"]) == (DOCUMENTS + 1 + 50 + 100 + 1, 1)
    assert response["failed"][0]["number"] == DOCUMENTS + 1 and response["failed"][0]["code"] == "invalid_type"
    detail = {"bucket": {"name": INPUTS}, "object": {"key": "in/note.md", "size": 1, "etag": "0"}}
    response = ingestion.function.invoke({"source": "aws.s3", "detail-type": "Object Created", "region": "eu-west-1", "detail": detail})
    assert response["documents"] == 1
    detail["bucket"]["name"] = "no-such-bucket-here"
    response = ingestion.function.invoke({"source": "aws.s3", "detail-type": "Object Created", "region": "eu-west-1", "detail": detail})
    assert response["failed"][0]["code"] == "object_not_found"


def test_distributed_map_processes_objects_and_rows(ingestion):
    ingestion.sink.clear()
    listed = ingestion.s3.list_objects_v2(Bucket=INPUTS, Prefix="in/")["Contents"]
    items = [{"Key": i["Key"], "Etag": i["ETag"], "Size": i["Size"], "LastModified": 1, "StorageClass": "STANDARD"} for i in listed]
    rows = [{"id": f"m{n}", "text": text(n), "n": str(n)} for n in range(3)]
    response = ingestion.function.invoke({"Items": items + rows, "BatchInput": {"bucket": INPUTS}})
    assert response["documents"] == sum(count_documents(ingestion.sink.points())), response
    assert count_documents(ingestion.sink.points())[1:] == (50, 100, 3, 1)


def test_fifo_queue_retries_later_messages_of_group(ingestion):
    ingestion.sink.clear()
    url = ingestion.sqs.create_queue(QueueName=f"{uuid.uuid4()}.fifo", Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"})["QueueUrl"]
    for n, body in enumerate(["one", "", "two"]):
        ingestion.sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"id": f"m{n}", "text": body}), MessageGroupId="a")
    ingestion.sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"id": "m9", "text": "other"}), MessageGroupId="b")
    messages = EventSourceMapping(ingestion.sqs, url, ingestion.function)
    batch = messages.receive_batch()
    response = ingestion.function.invoke({"Records": [messages.record(message) for message in batch]})
    names = {message["MessageId"]: json.loads(message["Body"])["id"] for message in batch}
    assert [names[item["itemIdentifier"]] for item in response["batchItemFailures"]] == ["m1", "m2"]
    assert count_documents(ingestion.sink.points())[3] == 2


def test_unavailable_sink_fails_with_retryable_error(aws, database):
    env = PostgresSink(database).env(aws) | {"TEALIGHT_SINK": f"qdrant+http://127.0.0.1:{servers.free_port()}/documents"}
    function = Function(env)
    try:
        with pytest.raises(InvocationFailed, match="upstream_error"):
            function.invoke({"Items": [{"id": 1, "text": "a"}]}, seconds=20)
        record = {"messageId": "m", "body": '{"text": "a"}', "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:eu-west-1:1:q", "attributes": {}}
        assert function.invoke({"Records": [record]}, seconds=20) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
    finally:
        function.stop()


def test_recording_is_transcribed_into_points(aws, database):
    model = ROOT / "target/hf"
    subprocess.run([ROOT / "models/fetch", "Systran/faster-whisper-tiny.en"], env=os.environ | {"HF_HOME": str(model)}, check=True, stdout=subprocess.DEVNULL)
    table, s3 = PostgresSink(database), client("s3", aws)
    table.clear()
    body = (ROOT / "tests/fixtures/audio/jfk.flac").read_bytes()
    if INPUTS not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=INPUTS, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    etag = s3.put_object(Bucket=INPUTS, Key="in/talk one.flac", Body=body)["ETag"]
    function = Function(table.env(aws) | {"TEALIGHT_SPEECH_MODEL": "whisper-tiny.en", "HF_HOME": str(model)})
    try:
        for _ in range(2):
            response = function.invoke({"Records": [notification("in/talk one.flac", etag, len(body))]})
            assert response["failures"] == 0 and response["documents"] == len(table.points()) > 0, response
    finally:
        function.stop()
        s3.delete_object(Bucket=INPUTS, Key="in/talk one.flac")
    points = sorted(table.points().values(), key=lambda point: point[6]["start_seconds"])
    assert "your country" in " ".join(point[2] for point in points)
    for document, _, _, _, _, _, metadata, _ in points:
        name, _, times = document.partition("#t=")
        assert name == f"s3://{INPUTS}/in/talk one.flac"
        start, end = map(float, times.split(","))
        assert (metadata["start_seconds"], metadata["end_seconds"]) == (start, end) and 0 <= start < end <= 11.1
