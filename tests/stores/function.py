"""Runs the binary as a Lambda function behind the Runtime API (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html), and an event
source mapping from a queue to it."""

import http.server
import json
import os
import queue
import subprocess
import threading
import time
import uuid

from conftest import ROOT, TEALIGHT

INVOCATION_PATH = "/2018-06-01/runtime/invocation/"
LAMBDA_ENVIRONMENT = {
    "AWS_LAMBDA_FUNCTION_NAME": "tealight",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/tealight",
    "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/23/[$LATEST]0123456789abcdef",
}


class Killed(Exception):
    """The process was killed before it responded."""


class InvocationFailed(Exception):
    """The function reported an error: its type and message."""


class RuntimeApi(http.server.BaseHTTPRequestHandler):
    """The Lambda Runtime API for one process."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def respond(self, status, body=b"{}", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        id, payload, deadline = self.server.events.get()
        headers = {"lambda_runtime_aws_request_id": id, "lambda_runtime_deadline_ms": str(int(deadline * 1000))}
        headers["lambda_runtime_invoked_function_arn"] = "arn:aws:lambda:eu-west-1:111122223333:function:tealight"
        self.respond(200, payload, content_type="application/json", **headers)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.responses.put((self.path.removeprefix(INVOCATION_PATH), json.loads(body)))
        self.respond(202)


class Function:
    """A process of the function. After it has been killed, the next invocation starts a new one."""

    def __init__(self, env):
        self.env = LAMBDA_ENVIRONMENT | env
        self.process = None

    def start(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
        self.server.daemon_threads = True
        self.server.events, self.server.responses = queue.Queue(), queue.Queue()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        env = inherited | {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_port}"} | self.env
        self.process = subprocess.Popen([TEALIGHT], cwd=ROOT, env=env, stdout=2)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.server.shutdown()
            self.server.server_close()
            self.process = None

    def next_response(self, deadline):
        try:
            return self.server.responses.get(timeout=max(0.001, min(0.5, deadline - time.monotonic())))
        except queue.Empty:
            return None

    def invoke(self, event, seconds=300, kill_after=None):
        """Returns the response. With kill_after, the process gets SIGKILL that many seconds after the event."""
        if not self.process:
            self.start()
            # Start-up is not part of the timed work.
            self.invoke({"input": "warm"})
        id = str(uuid.uuid4())
        self.server.events.put((id, json.dumps(event).encode(), time.time() + seconds))
        deadline = time.monotonic() + (seconds if kill_after is None else kill_after)
        while (result := self.next_response(deadline)) is None:
            assert self.process.poll() is None, f"the function exited with code {self.process.returncode}"
            if time.monotonic() >= deadline:
                assert kill_after is not None, "no response before the deadline"
                self.stop()
                raise Killed
        path, response = result
        assert path.startswith(id), path
        if path.endswith("/error"):
            raise InvocationFailed(response["errorType"], response["errorMessage"])
        return response


class EventSourceMapping:
    """Lambda's event source mapping of a queue: invokes the function with batches and deletes only the messages that did not fail."""

    def __init__(self, sqs, url, function):
        self.sqs, self.url, self.function = sqs, url, function
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        self.arn = attributes["Attributes"]["QueueArn"]

    def receive_batch(self):
        names = {"MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"]}
        return self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, **names).get("Messages", [])

    def record(self, message):
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message.get("Attributes", {}),
            "messageAttributes": {},
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self.arn,
            "awsRegion": "eu-west-1",
        }

    def process_batch(self, **options):
        """Processes one batch. Returns the ids of the failed messages, or None if the queue is empty."""
        messages = self.receive_batch()
        if not messages:
            return None
        failed = [message["MessageId"] for message in messages]
        try:
            response = self.function.invoke({"Records": [self.record(message) for message in messages]}, **options)
            failed = [item["itemIdentifier"] for item in response["batchItemFailures"]]
        finally:
            for message in messages:
                if message["MessageId"] not in failed:
                    self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
                else:
                    # Visible again immediately; Lambda would wait for the visibility timeout.
                    self.sqs.change_message_visibility(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
        return failed
