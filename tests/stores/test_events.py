"""Events of the Lambda function: whatever is killed, cut or late, in the end the index is the one that nothing disturbed."""

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
from function import Failed, Function, Killed, Mapping
from test_pgvector import COLUMNS

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-1"}
INPUTS = "documents-in"
# Long enough to be killed in.
COUNT = 400


def text(number):
    words = random.Random(number).choices("a candle burns low while the wind outside turns every page of an old book".split(), k=60)
    return f"{number}: {' '.join(words)}"


def lines(numbers):
    return "".join(json.dumps({"id": f"d{n}", "text": text(n), "metadata": {"n": n}}) + "\n" for n in numbers).encode()


def parquet(numbers):
    numbers = list(numbers)
    # Before the texts in the file, so that much of it stands between one and the next.
    codes = [random.Random(n).randbytes(20_000).hex() for n in numbers]
    table = {"codes": codes, "id": [f"p{n}" for n in numbers], "text": [text(n) for n in numbers], "n": numbers}
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(table), file, compression="snappy", row_group_size=40, use_dictionary=False)
    return file.getvalue()


OBJECTS = {
    "in/lines of +ü.jsonl": lines(range(COUNT)) + b"poison\n" + lines([COUNT]),
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


class Table:
    """Points in PostgreSQL."""

    def __init__(self, database):
        self.server, self.connection = database

    def clear(self):
        self.connection.execute(f"drop table if exists documents; create table documents ({COLUMNS} vector(384))")

    def env(self, url):
        sink = f"postgres://postgres@127.0.0.1:{self.server.port}/postgres?table=documents&sslmode=disable"
        return KEYS | {"AWS_ENDPOINT_URL": url, "TEALIGHT_SINK": sink}

    def found(self):
        rows = self.connection.execute('select id, document_id, chunk, text, "start", "end", model, metadata, vector::text from documents')
        return {str(row[0]): row[1:] for row in rows.fetchall()}


class Folder:
    """Points in objects of S3."""

    def __init__(self, s3):
        self.s3 = s3
        s3.create_bucket(Bucket="points-out", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    def clear(self):
        for item in self.s3.list_objects_v2(Bucket="points-out").get("Contents", []):
            self.s3.delete_object(Bucket="points-out", Key=item["Key"])

    def env(self, url):
        return KEYS | {"AWS_ENDPOINT_URL": url, "TEALIGHT_SINK": "s3://points-out/here"}

    def found(self):
        items = self.s3.list_objects_v2(Bucket="points-out").get("Contents", [])
        bodies = {item["Key"]: self.s3.get_object(Bucket="points-out", Key=item["Key"])["Body"].read() for item in items}
        # Messages are other ones each time, and so are the names of their objects.
        ids = {key: " ".join(json.loads(line)["document_id"] for line in body.decode().splitlines()) for key, body in bodies.items()}
        names = {key: key if key.startswith("here/in/") else ids[key] for key in bodies}
        assert len(set(names.values())) == len(bodies), "an object for each message, and no more"
        return {names[key]: body for key, body in bodies.items()}


class World:
    """A bucket of documents, a queue that hears of them, the function, and its sink."""

    def __init__(self, url, sink):
        self.url, self.sink = url, sink
        self.s3, self.sqs = client("s3", url), client("sqs", url)
        self.function = Function(sink.env(url))

    def begin(self):
        self.sink.clear()
        self.queue = self.sqs.create_queue(QueueName=f"documents-{uuid.uuid4()}")["QueueUrl"]
        self.mapping = Mapping(self.sqs, self.queue, self.function)
        for key, body in OBJECTS.items():
            etag = self.s3.put_object(Bucket=INPUTS, Key=key, Body=body)["ETag"]
            self.send({"Records": [notice(key, etag, len(body))]})
        for n in range(3):
            self.send({"id": f"m{n}", "text": text(n)})

    def send(self, body, **options):
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=body if isinstance(body, str) else json.dumps(body), **options)

    def drain(self):
        while (failed := self.mapping.once()) is not None:
            assert not failed, failed


def notice(key, etag, size):
    escaped = urllib.parse.quote_plus(key, safe="/")
    record = {"bucket": {"name": INPUTS, "arn": f"arn:aws:s3:::{INPUTS}"}, "object": {"key": escaped, "size": size, "eTag": etag.strip('"'), "sequencer": "00"}}
    return {"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-west-1", "eventName": "ObjectCreated:Put", "s3": record}


@pytest.fixture(scope="module", params=["postgres", "s3"])
def world(request, aws, database):
    s3 = client("s3", aws)
    if INPUTS not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=INPUTS, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    world = World(aws, Table(database) if request.param == "postgres" else Folder(s3))
    yield world
    world.function.stop()


@pytest.fixture(scope="module")
def undisturbed(world):
    world.begin()
    # What starts the function is no part of its work.
    world.function.invoke({"input": "warm"})
    began = time.monotonic()
    world.drain()
    world.seconds = time.monotonic() - began
    return world.sink.found()


def documents(found):
    """How many points each kind of document has."""
    ids = []
    for value in found.values():
        ids += [value[0]] if isinstance(value, tuple) else [json.loads(line)["document_id"] for line in value.decode().splitlines()]
    count = lambda start: len({id for id in ids if id.startswith(start)})
    return count("d"), count("c"), count("p"), count("m"), count("s3://")


def test_everything_is_there(undisturbed):
    assert documents(undisturbed) == (COUNT + 1, 50, 100, 3, 1)


# A kill at other moments for each; more of them where somebody asks for more.
@pytest.mark.parametrize("seed", range(int(os.environ.get("TEALIGHT_KILLS", "2"))))
def test_a_kill_changes_nothing(world, undisturbed, seed):
    draw, kills, seconds = random.Random(seed), 0, world.seconds
    while not kills:
        # All was done before the kill came: sooner, then.
        world.begin()
        for _ in range(6):
            try:
                if world.mapping.once(kill_after=draw.uniform(0.01, seconds)) is None:
                    break
            except Killed:
                kills += 1
        seconds /= 2
    world.drain()
    assert world.sink.found() == undisturbed


def test_time_that_runs_out_loses_nothing(world, undisturbed):
    world.begin()
    handed_back = 0
    for seconds in [1, 1.5, 2, 2.5, 3]:
        try:
            handed_back += len(world.mapping.once(seconds=seconds) or [])
        except Failed as error:
            # On a machine that is busy elsewhere, not even a reply is in time: then all messages come back.
            assert error.args[0] == "timeout"
    world.drain()
    assert handed_back and world.sink.found() == undisturbed


def test_messages_twice_change_nothing(world, undisturbed):
    world.begin()
    key, body = next(iter(OBJECTS.items()))
    etag = world.s3.head_object(Bucket=INPUTS, Key=key)["ETag"]
    world.send({"Records": [notice(key, etag, len(body))] * 2})
    world.drain()
    assert world.sink.found() == undisturbed


def test_a_replaced_object_is_written_as_it_is_now(world, undisturbed):
    world.begin()
    key = "in/lines of +ü.jsonl"
    world.s3.put_object(Bucket=INPUTS, Key=key, Body=lines(range(1000, 1010)))
    world.drain()
    assert documents(world.sink.found()) == (10, 50, 100, 3, 1)
    world.s3.delete_object(Bucket=INPUTS, Key=key)


def test_a_notice_by_itself_is_done_as_a_whole(world):
    world.begin()
    objects = [notice(key, world.s3.head_object(Bucket=INPUTS, Key=key)["ETag"], len(body)) for key, body in OBJECTS.items()]
    reply = world.function.invoke({"Records": objects})
    assert (reply["documents"], reply["failures"]) == (COUNT + 1 + 50 + 100 + 1, 1)
    assert reply["failed"][0]["number"] == COUNT + 1 and reply["failed"][0]["code"] == "invalid_type"
    detail = {"bucket": {"name": INPUTS}, "object": {"key": "in/note.md", "size": 1, "etag": "0"}}
    reply = world.function.invoke({"source": "aws.s3", "detail-type": "Object Created", "region": "eu-west-1", "detail": detail})
    assert reply["documents"] == 1
    detail["bucket"]["name"] = "no-such-bucket-here"
    reply = world.function.invoke({"source": "aws.s3", "detail-type": "Object Created", "region": "eu-west-1", "detail": detail})
    assert reply["failed"][0]["code"] == "object_not_found"


def test_a_distributed_map_brings_objects_and_rows(world):
    world.sink.clear()
    listed = world.s3.list_objects_v2(Bucket=INPUTS, Prefix="in/")["Contents"]
    items = [{"Key": i["Key"], "Etag": i["ETag"], "Size": i["Size"], "LastModified": 1, "StorageClass": "STANDARD"} for i in listed]
    rows = [{"id": f"m{n}", "text": text(n), "n": str(n)} for n in range(3)]
    reply = world.function.invoke({"Items": items + rows, "BatchInput": {"bucket": INPUTS}})
    assert reply["documents"] == sum(documents(world.sink.found())), reply
    assert documents(world.sink.found())[1:] == (50, 100, 3, 1)


def test_a_fifo_queue_keeps_its_order(world):
    world.sink.clear()
    url = world.sqs.create_queue(QueueName=f"{uuid.uuid4()}.fifo", Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"})["QueueUrl"]
    for n, body in enumerate(["one", "", "two"]):
        world.sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"id": f"m{n}", "text": body}), MessageGroupId="a")
    world.sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"id": "m9", "text": "other"}), MessageGroupId="b")
    messages = Mapping(world.sqs, url, world.function)
    batch = messages.batch()
    reply = world.function.invoke({"Records": [messages.record(message) for message in batch]})
    names = {message["MessageId"]: json.loads(message["Body"])["id"] for message in batch}
    assert [names[item["itemIdentifier"]] for item in reply["batchItemFailures"]] == ["m1", "m2"]
    assert documents(world.sink.found())[3] == 2


def test_a_sink_that_is_away_fails_everything_for_now(aws, database):
    env = Table(database).env(aws) | {"TEALIGHT_SINK": f"qdrant+http://127.0.0.1:{servers.free_port()}/documents"}
    function = Function(env)
    try:
        with pytest.raises(Failed, match="upstream_error"):
            function.invoke({"Items": [{"id": 1, "text": "a"}]}, seconds=20)
        record = {"messageId": "m", "body": '{"text": "a"}', "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:eu-west-1:1:q", "attributes": {}}
        assert function.invoke({"Records": [record]}, seconds=20) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
    finally:
        function.stop()


def test_what_a_recording_says_becomes_points(aws, database):
    model = ROOT / "target/hf"
    subprocess.run([ROOT / "models/fetch", "Systran/faster-whisper-tiny.en"], env=os.environ | {"HF_HOME": str(model)}, check=True, stdout=subprocess.DEVNULL)
    table, s3 = Table(database), client("s3", aws)
    table.clear()
    body = (ROOT / "tests/fixtures/audio/jfk.flac").read_bytes()
    if INPUTS not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=INPUTS, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    etag = s3.put_object(Bucket=INPUTS, Key="in/talk one.flac", Body=body)["ETag"]
    function = Function(table.env(aws) | {"TEALIGHT_SPEECH_MODEL": "whisper-tiny.en", "HF_HOME": str(model)})
    try:
        for _ in range(2):
            reply = function.invoke({"Records": [notice("in/talk one.flac", etag, len(body))]})
            assert reply["failures"] == 0 and reply["documents"] == len(table.found()) > 0, reply
    finally:
        function.stop()
        s3.delete_object(Bucket=INPUTS, Key="in/talk one.flac")
    points = sorted(table.found().values(), key=lambda point: point[6]["start_seconds"])
    assert "your country" in " ".join(point[2] for point in points)
    for document, _, _, _, _, _, metadata, _ in points:
        name, _, times = document.partition("#t=")
        assert name == f"s3://{INPUTS}/in/talk one.flac"
        start, end = map(float, times.split(","))
        assert (metadata["start_seconds"], metadata["end_seconds"]) == (start, end) and 0 <= start < end <= 11.1
