"""The binary as a Lambda function, and what stands between it and a queue: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html"""

import http.server
import json
import os
import queue
import subprocess
import threading
import time
import uuid

from conftest import ROOT, TEALIGHT

API = "/2018-06-01/runtime/invocation/"


LAMBDA = {
    "AWS_LAMBDA_FUNCTION_NAME": "tealight",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/tealight",
    "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/23/[$LATEST]0123456789abcdef",
}


class Killed(Exception):
    """The process was killed before it answered."""


class Failed(Exception):
    """The invocation failed: what the function says of it."""


class Runtime(http.server.BaseHTTPRequestHandler):
    """Lambda's side of one process."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"{}", **headers):
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
        self.answer(200, payload, content_type="application/json", **headers)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.replies.put((self.path.removeprefix(API), json.loads(body)))
        self.answer(202)


class Function:
    """One process, which may be killed; the next invocation starts another."""

    def __init__(self, env):
        self.env = LAMBDA | env
        self.process = None

    def start(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Runtime)
        self.server.daemon_threads = True
        self.server.events, self.server.replies = queue.Queue(), queue.Queue()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        env = kept | {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_port}"} | self.env
        self.process = subprocess.Popen([TEALIGHT], cwd=ROOT, env=env, stdout=2)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.server.shutdown()
            self.server.server_close()
            self.process = None

    def answered(self, until):
        try:
            return self.server.replies.get(timeout=max(0.001, min(0.5, until - time.monotonic())))
        except queue.Empty:
            return None

    def invoke(self, event, seconds=300, kill_after=None):
        """The reply. With kill_after, SIGKILL comes so many seconds after the event."""
        if not self.process:
            self.start()
            # So that what is timed is the work.
            self.invoke({"input": "warm"})
        id = str(uuid.uuid4())
        self.server.events.put((id, json.dumps(event).encode(), time.time() + seconds))
        until = time.monotonic() + (seconds if kill_after is None else kill_after)
        while (answer := self.answered(until)) is None:
            assert self.process.poll() is None, f"the function ended with {self.process.returncode}"
            if time.monotonic() >= until:
                assert kill_after is not None, "no answer by the deadline"
                self.stop()
                raise Killed
        path, reply = answer
        assert path.startswith(id), path
        if path.endswith("/error"):
            raise Failed(reply["errorType"], reply["errorMessage"])
        return reply


class Mapping:
    """What Lambda's event source mapping does for a queue: batches in, and only what is done is deleted."""

    def __init__(self, sqs, url, function):
        self.sqs, self.url, self.function = sqs, url, function
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        self.arn = attributes["Attributes"]["QueueArn"]

    def batch(self):
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

    def once(self, **options):
        """One batch: the ids of those that failed, or none where the queue is empty."""
        messages = self.batch()
        if not messages:
            return None
        failed = [message["MessageId"] for message in messages]
        try:
            reply = self.function.invoke({"Records": [self.record(message) for message in messages]}, **options)
            failed = [item["itemIdentifier"] for item in reply["batchItemFailures"]]
        finally:
            for message in messages:
                if message["MessageId"] not in failed:
                    self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
                else:
                    # At once, where Lambda would wait.
                    self.sqs.change_message_visibility(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
        return failed
