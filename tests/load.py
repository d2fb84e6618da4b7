"""The server under load, as a client on the network sees it: tests/check_load [SECONDS].

64 clients at once, for so many seconds; more clients than there are places; 10,000 connections that say nothing, others that stop in
the middle; a signal to stop while all are at work. Speed is printed and asserted nowhere: machines differ.
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
# A server of this model with 10,000 connections; what is bounded does not grow with the number of requests.
MOST_MEMORY = 400 << 20
BODY = json.dumps({"input": "How do I keep a candle from dripping on the table cloth?"})
LONG = json.dumps({"input": [f"{n} " + "light and shadow " * 60 for n in range(8)], "truncate": True})

SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '%s'
local threads, count = {}, 0
function setup(thread) thread:set("statuses", "") table.insert(threads, thread) end
function init() seen = {} seen_text = "" end
function response(status, headers)
  local key = status .. (headers["Retry-After"] and ("+" .. headers["Retry-After"]) or (headers["retry-after"] and ("+" .. headers["retry-after"]) or ""))
  seen[key] = (seen[key] or 0) + 1
  local parts = {}
  for k, v in pairs(seen) do table.insert(parts, k .. "=" .. v) end
  seen_text = table.concat(parts, " ")
end
function done(summary, latency)
  for _, thread in ipairs(threads) do print("STATUSES " .. (thread:get("seen_text") or "")) end
  local e = summary.errors
  print(string.format("ERRORS %%d", e.connect + e.read + e.write + e.timeout))
  print(string.format("LATENCY %%d %%d %%d", latency:percentile(50), latency:percentile(99), latency.max))
end
"""


class Server:
    """`tealight serve` with these variables."""

    def __init__(self, **variables):
        self.log = tempfile.TemporaryFile()
        command = [ROOT / "target/release/tealight", "serve", "--port", "0"]
        self.process = subprocess.Popen(command, stderr=self.log, stdin=subprocess.DEVNULL, env=os.environ | variables | {"RUST_LOG": "warn"})
        self.port = self.wait_for_port()

    def wait_for_port(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(rb"listening on http://127.0.0.1:(\d+)", self.logged()):
                return int(found[1])
            time.sleep(0.02)
        raise SystemExit(f"the server does not listen: {self.logged()!r}")

    def logged(self):
        self.log.seek(0)
        return self.log.read()

    def memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10

    def post(self, body=BODY, timeout=120):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert code == 0, f"the server ended with {code}: {self.logged()!r}"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def wrk(server, seconds):
    """Statuses with their numbers, other errors, and the latencies of 50 %, 99 % and all, in ms."""
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
        early = server.memory()
        statuses, errors, (half, most, all_) = wrk(server, seconds)
        late = server.memory()
        assert set(statuses) == {"200"} and errors == 0, (statuses, errors)
        assert late < early * 1.25 + (8 << 20), f"memory grew from {early >> 20} to {late >> 20} MiB"
        rate = statuses["200"] / seconds
        print(f"{CLIENTS} clients, {seconds} s: {statuses['200']} replies, {rate:.0f}/s, none failed; p50 {half:.1f} ms, p99 {most:.1f} ms "
              f"({most / half:.2f} x), longest {all_:.1f} ms; memory {early >> 20} to {late >> 20} MiB")
        server.stop()


def too_many_clients():
    with Server(TEALIGHT_MAX_CONCURRENT_REQUESTS="4") as server:
        statuses, errors, _ = wrk(server, 2)
        assert set(statuses) == {"200", "503+1"}, f"neither served nor told when to come again: {statuses}"
        assert errors == 0, errors
        status = server.post()[0]
        if status == 503:
            # What the last clients asked for was still worked on: a client comes again when it was told to.
            time.sleep(1)
            status = server.post()[0]
        assert status == 200, status
        print(f"{CLIENTS} clients at 4 places: {statuses}")
        server.stop()


def stuck_clients():
    """Clients that say nothing, or stop in the middle, beside one that means it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle = min(IDLE, hard - 500)
    if idle < IDLE:
        print(f"this system allows {hard} open files: {idle} connections instead of {IDLE}")
    # As most systems begin.
    with Server.limited(1024) as server, contextlib.ExitStack() as held:
        def connect(first=b""):
            client = held.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            client.sendall(first)
            return client

        begun = time.monotonic()
        for _ in range(idle):
            connect()
        opened = time.monotonic() - begun
        halves = [connect(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{\"input\":") for _ in range(100)]
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
        refused = huge.recv(100)
        assert refused.startswith(b"HTTP/1.1 431"), refused
        memory = server.memory()
        assert memory < MOST_MEMORY, f"{memory >> 20} MiB"
        times.sort()
        print(f"{idle} idle connections (opened in {opened:.1f} s), {len(halves)} half-sent bodies, {len(slow)} slow headers: others are served in "
              f"{times[25] * 1e3:.1f} ms, the slowest in {times[-1] * 1e3:.1f}; memory {memory >> 20} MiB")
        server.stop()


def stop_in_flight():
    with Server() as server:
        assert server.post()[0] == 200
        replies, threads = [], []
        for _ in range(16):
            threads.append(threading.Thread(target=lambda: replies.append(server.post(LONG)[0])))
            threads[-1].start()
        time.sleep(0.3)
        server.stop()
        for thread in threads:
            thread.join()
        assert replies == [200] * 16, replies
        print("a signal to stop: 16 requests in flight are answered first")


def limited(soft):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        return Server()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


Server.limited = staticmethod(limited)


def main():
    many_clients(int(sys.argv[1]))
    too_many_clients()
    stuck_clients()
    stop_in_flight()


if __name__ == "__main__":
    main()
