"""examples/s3_to_pgvector as deployed: S3 notifications reach the function through its queue, and search.py searches the table."""

import http.server
import json
import os
import subprocess
import sys
import threading

import boto3
import pytest
import servers
from conftest import ROOT
from function import EventSourceMapping, Function, InvocationFailed

EXAMPLE = ROOT / "examples/s3_to_pgvector"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}
FUNCTION_ARN = "arn:aws:lambda:eu-west-1:111122223333:function:tealight"
OBJECTS = {
    "in/hand book.md": "# Accounts\n\nInvoices are kept for ten years, in the cabinet on the second floor.\n\n" + "Nothing else is said here. " * 100,
    "in/lunch.csv": "id,text,day\nl1,On Fridays there is fish and potatoes.,5\nl2,Soup is served on Mondays.,1\n",
    "in/talks.jsonl": '{"id": "t1", "text": "The rocket was launched from an island near the equator."}\n',
    "out/elsewhere.md": "Invoices are burnt at once.",
}


class InvokeApi(http.server.BaseHTTPRequestHandler):
    """Lambda's Invoke API: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html"""

    def log_message(self, *_):
        pass

    def do_POST(self):
        assert "function%3Atealight/invocations" in self.path, self.path
        event, headers = json.loads(self.rfile.read(int(self.headers["content-length"]))), {}
        try:
            response = self.server.function.invoke(event)
        except InvocationFailed as error:
            response, headers = dict(zip(["errorType", "errorMessage"], error.args)), {"x-amz-function-error": "Unhandled"}
        body = json.dumps(response).encode()
        self.send_response(200)
        for name, value in (headers | {"content-length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def database():
    with servers.postgres() as server:
        with server.connect() as connection:
            connection.execute((EXAMPLE / "schema.sql").read_text())
            connection.execute("alter role tealight password 'pass wörd'")
        yield server


@pytest.fixture(scope="module")
def function(database):
    with servers.aws() as url:
        sink = f"postgres://tealight@127.0.0.1:{database.port}/postgres?sslmode=disable"
        function = Function(CREDENTIALS | {"AWS_ENDPOINT_URL": url, "TEALIGHT_SINK": sink, "TEALIGHT_SINK_KEY": "pass wörd", "TEALIGHT_CHUNK_TOKENS": "200"})
        function.url = url
        yield function
        function.stop()


@pytest.fixture(scope="module")
def loaded(function):
    """The resources of template.yaml: a bucket that notifies a queue of new objects under in/. Processes all documents."""
    s3, sqs = (boto3.client(name, endpoint_url=function.url, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b") for name in ("s3", "sqs"))
    queue = sqs.create_queue(QueueName="documents")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.create_bucket(Bucket="acme-papers", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    rules = [{"Name": "prefix", "Value": "in/"}]
    notification = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": {"Key": {"FilterRules": rules}}}
    s3.put_bucket_notification_configuration(Bucket="acme-papers", NotificationConfiguration={"QueueConfigurations": [notification]})
    for key, body in OBJECTS.items():
        s3.put_object(Bucket="acme-papers", Key=key, Body=body.encode())
    mapping = EventSourceMapping(sqs, queue, function)
    while (failed := mapping.process_batch()) is not None:
        assert not failed, failed


@pytest.fixture
def search(function, database):
    """Runs search.py. Returns its results, or its standard error if `code` is not 0."""
    def search(*question, code=0, **env):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TEALIGHT_"))}
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), InvokeApi) as server:
            server.function = function
            threading.Thread(target=server.serve_forever, daemon=True).start()
            env = CREDENTIALS | {
                "AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{server.server_port}",
                "DATABASE_URL": f"postgres://postgres@127.0.0.1:{database.port}/postgres",
                "TEALIGHT_FUNCTION": FUNCTION_ARN,
            } | env
            env = inherited | {name: value for name, value in env.items() if value is not None}
            command = [sys.executable, str(EXAMPLE / "search.py"), *question]
            result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
            server.shutdown()
        assert result.returncode == code and "Traceback" not in result.stderr, result.stdout + result.stderr
        return [line.split("  ", 2) for line in result.stdout.splitlines()] if code == 0 else result.stderr

    return search


def test_search_finds_matching_document(loaded, database, search):
    found = search("how long do we store bills?")
    assert len(found) == 3 and found[0][1] == "s3://acme-papers/in/hand book.md" and "kept for ten years" in found[0][2]
    assert float(found[0][0]) > float(found[1][0])
    assert search("when", "can", "I", "eat", "fish?")[0][1] == "l1"
    assert search("a journey into space")[0][1] == "t1"
    with database.connect() as connection:
        chunks = connection.execute("select document_id, count(*) from documents group by 1").fetchall()
    assert dict(chunks) == {"s3://acme-papers/in/hand book.md": 4, "l1": 1, "l2": 1, "t1": 1}


def test_failure_prints_one_line(loaded, search):
    assert "pip install" in search(code=1)
    assert "DATABASE_URL' is not set" in search("anything", code=1, DATABASE_URL=None)
    assert "connection" in search("anything", code=1, DATABASE_URL=f"postgres://postgres@127.0.0.1:{servers.free_port()}/postgres")
    assert "context_length_exceeded" in search("word " * 3000, code=1)
