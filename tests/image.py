"""Serves the Lambda Runtime API for a function that a command starts: tests/image.py KIND COMMAND... In the command, "=API" is replaced by
the address of the API. KIND is the initialization type; for snap-start the function must restore before its first invocation."""

import http.server
import json
import queue
import subprocess
import sys
import threading

EVENT = json.dumps({"input": "hello world"}).encode()
requested, responses = [], queue.Queue()


class RuntimeApi(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        requested.append(self.path.rsplit("/runtime/")[1])
        if requested.count("invocation/next") > 1:
            threading.Event().wait()
        body = EVENT if self.path.endswith("/invocation/next") else b"{}"
        self.send_response(200)
        self.send_header("lambda-runtime-aws-request-id", "one")
        self.send_header("lambda-runtime-deadline-ms", "33000000000000")
        self.send_header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-west-1:111122223333:function:tealight")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        responses.put((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
        self.send_response(202)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


def main():
    kind, command = sys.argv[1], sys.argv[2:]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    process = subprocess.Popen([part.replace("=API", f"=127.0.0.1:{server.server_port}") for part in command])
    try:
        path, response = responses.get(timeout=120)
    finally:
        process.kill()
    assert path.endswith("/invocation/one/response") and len(response["data"][0]["embedding"]) == 384, (path, response)
    expected = ["restore/next", "invocation/next"] if kind == "snap-start" else ["invocation/next"]
    assert requested[: len(expected)] == expected, requested
    print(f"the image responds ({kind}): {' then '.join(expected)}")


if __name__ == "__main__":
    main()
