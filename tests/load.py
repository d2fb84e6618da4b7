"""Load tests of the server: tests/check_load [SECONDS].

64 concurrent clients for SECONDS; more clients than the concurrency limit; 10,000 idle connections and clients that stop in the middle of
a request; SIGTERM while requests are in flight. Speed is printed but not asserted, because machines differ.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
CLIENTS = 64
IDLE = 10_000
# For a server with the default model and 10,000 connections.
MAX_MEMORY = 400 << 20
BODY = json.dumps({"input": "How do I keep a candle from dripping on the table cloth?"})
LONG = json.dumps({"input": [f"{n} " + "light and shadow " * 60 for n in range(8)], "truncate": True})

SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '%s'
local threads, count = {}, 0
function setup(thread) thread:set("statuses", "") table.insert(threads, thread) end
function init() counts = {} counts_text = "" end
function response(status, headers)
  local key = status .. (headers["Retry-After"] and ("+" .. headers["Retry-After"]) or (headers["retry-after"] and ("+" .. headers["retry-after"]) or ""))
  counts[key] = (counts[key] or 0) + 1
  local parts = {}
  for k, v in pairs(counts) do table.insert(parts, k .. "=" .. v) end
  counts_text = table.concat(parts, " ")
end
function done(summary, latency)
  for _, thread in ipairs(threads) do print("STATUSES " .. (thread:get("counts_text") or "")) end
  local e = summary.errors
  print(string.format("ERRORS %%d", e.connect + e.read + e.write + e.timeout))
  print(string.format("LATENCY %%d %%d %%d", latency:percentile(50), latency:percentile(99), latency.max))
end
"""


class Server:
    """A `tealight serve` process with additional environment variables."""

    def __init__(self, **variables):
        self.log = tempfile.TemporaryFile()
        command = [os.environ.get("TEALIGHT_BIN", ROOT / "target/release/tealight"), "serve", "--port", "0"]
        self.process = subprocess.Popen(command, stderr=self.log, stdin=subprocess.DEVNULL, env=os.environ | variables | {"RUST_LOG": "warn"})
        self.port = self.wait_for_port()

    def wait_for_port(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(rb"listening on http://127.0.0.1:(\d+)", self.read_log()):
                return int(found[1])
            time.sleep(0.02)
        raise SystemExit(f"the server did not start: {self.read_log()!r}")

    def read_log(self):
        self.log.seek(0)
        return self.log.read()

    def memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10

    def post(self, body=BODY, timeout=120):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert code == 0, f"the server exited with code {code}: {self.read_log()!r}"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def wrk(server, seconds):
    """Runs wrk. Returns the number of responses per status, the number of connection errors, and latencies p50, p99 and maximum in ms.

    A status with a Retry-After header has the header's value appended, as in 503+1.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % BODY)
        script.flush()
        command = ["wrk", "-t2", f"-c{CLIENTS}", f"-d{seconds}s", "--timeout", "60s", "-s", script.name]
        command.append(f"http://127.0.0.1:{server.port}/v1/embeddings")
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    statuses = {}
    for status, count in re.findall(r"(\d{3}(?:\+\d+)?)=(\d+)", " ".join(re.findall(r"STATUSES (.*)", text))):
        statuses[status] = statuses.get(status, 0) + int(count)
    errors = int(re.search(r"ERRORS (\d+)", text)[1])
    latency = [int(us) / 1e3 for us in re.search(r"LATENCY (\d+) (\d+) (\d+)", text).groups()]
    return statuses, errors, latency


def many_clients(seconds):
    with Server() as server:
        wrk(server, 1)
        memory_before = server.memory()
        statuses, errors, (p50, p99, longest) = wrk(server, seconds)
        memory_after = server.memory()
        assert set(statuses) == {"200"} and errors == 0, (statuses, errors)
        assert memory_after < memory_before * 1.25 + (8 << 20), f"memory grew from {memory_before >> 20} to {memory_after >> 20} MiB"
        rate = statuses["200"] / seconds
        print(f"{CLIENTS} clients, {seconds} s: {statuses['200']} responses, {rate:.0f}/s, none failed; p50 {p50:.1f} ms, p99 {p99:.1f} ms "
              f"({p99 / p50:.2f}x), maximum {longest:.1f} ms; memory {memory_before >> 20} to {memory_after >> 20} MiB")
        server.stop()


def too_many_clients():
    with Server(TEALIGHT_MAX_CONCURRENT_REQUESTS="4") as server:
        statuses, errors, _ = wrk(server, 2)
        assert set(statuses) == {"200", "503+1"}, f"unexpected statuses; expected 200, and 503 with Retry-After: 1: {statuses}"
        assert errors == 0, errors
        status = server.post()[0]
        if status == 503:
            # The last requests of wrk were still being processed; retry after the time in Retry-After.
            time.sleep(1)
            status = server.post()[0]
        assert status == 200, status
        print(f"{CLIENTS} clients at a concurrency limit of 4: {statuses}")
        server.stop()


def stuck_clients():
    """Idle connections and clients that stop in the middle of a request must not block other clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle = min(IDLE, hard - 500)
    if idle < IDLE:
        print(f"this system allows {hard} open files: {idle} connections instead of {IDLE}")
    # 1024 is the default limit of open files on most systems.
    with start_limited(1024) as server, contextlib.ExitStack() as connections:
        def connect(first=b""):
            client = connections.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            client.sendall(first)
            return client

        start = time.monotonic()
        for _ in range(idle):
            connect()
        opening_seconds = time.monotonic() - start
        half_sent = [connect(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{\"input\":") for _ in range(100)]
        slow = [connect(b"POST /v1/embe") for _ in range(100)]
        huge = connect(b"GET /health HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * (1 << 20))
        times = []
        for _ in range(50):
            start = time.monotonic()
            status, body = server.post(timeout=30)
            assert status == 200, (status, body)
            times.append(time.monotonic() - start)
            for client in slow:
                with contextlib.suppress(OSError):
                    client.sendall(b"x")
        rejection = huge.recv(100)
        assert rejection.startswith(b"HTTP/1.1 431"), rejection
        memory = server.memory()
        assert memory < MAX_MEMORY, f"{memory >> 20} MiB"
        times.sort()
        print(f"{idle} idle connections (opened in {opening_seconds:.1f} s), {len(half_sent)} half-sent bodies, {len(slow)} slow headers: other requests take "
              f"{times[25] * 1e3:.1f} ms, at most {times[-1] * 1e3:.1f} ms; memory {memory >> 20} MiB")
        server.stop()


def graceful_shutdown():
    with Server() as server:
        assert server.post()[0] == 200
        statuses, threads = [], []
        for _ in range(16):
            threads.append(threading.Thread(target=lambda: statuses.append(server.post(LONG)[0])))
            threads[-1].start()
        time.sleep(0.3)
        server.stop()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 16, statuses
        print("SIGTERM: 16 requests in flight are completed first")


def start_limited(max_open_files):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_open_files, hard))
    try:
        return Server()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main():
    many_clients(int(sys.argv[1]))
    too_many_clients()
    stuck_clients()
    graceful_shutdown()


if __name__ == "__main__":
    main()
