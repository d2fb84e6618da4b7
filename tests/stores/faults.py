"""What stands between tealight and a server and does it harm, the same harm every time."""

import datetime
import hashlib
import http.client
import http.server
import json
import random
import socket
import socketserver
import ssl
import struct
import threading
import time
import urllib.parse

KINDS = ["reset", "early", "429", "500", "503", "slow", "lost", "cut"]


def always(kind, times=2):
    """The same harm to every request, so many times."""
    return lambda _: [kind] * times


def mixed(seed, kinds=KINDS):
    """Up to three harms to a request, drawn from the seed and from the request alone: in whatever order requests come."""
    def plan(identity):
        draw = random.Random(f"{seed} {identity}")
        return draw.choices(kinds, k=draw.randint(0, 3))

    return plan


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on, after the harm planned for them.

    reset   the connection is closed before there is an answer; the server never hears of the request
    early   the same, with half of the request read
    429, 500, 503   said in the server's place; 429 with a Retry-After of a second
    slow    the answer comes in two parts, with a pause between them
    lost    the server does what it is asked to, and the connection is closed without its answer
    cut     the same, with half of the answer written
    partial   of a _bulk, every other document is refused for now
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream, plan=always("", 0), port=0, check=None):
        self.upstream, self.plan, self.check = urllib.parse.urlparse(upstream), plan, check
        self.lock, self.attempts, self.after = threading.Lock(), {}, {}
        self.done, self.early, self.wrong = [], [], []
        super().__init__(("127.0.0.1", port), ProxyHandler)
        self.address = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def next_harm(self, identity):
        with self.lock:
            attempt = self.attempts[identity] = self.attempts.get(identity, -1) + 1
            if time.monotonic() < self.after.pop(identity, 0):
                self.early.append(identity)
            harms = self.plan(identity)
            harm = harms[attempt] if attempt < len(harms) else None
            if harm == "429":
                self.after[identity] = time.monotonic() + 0.95
            self.done.append(harm)
            return harm

    def handle_error(self, request, client_address):
        pass


class ProxyHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def drop(self):
        """Closes the connection so that the other side finds it reset."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def body(self, share=1.0):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(int(self.headers.get("content-length", 0)) * share))

    def answer(self, status, headers, body, pause=0.0, share=1.0):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(body) // 2
        self.wfile.write(body[:half])
        if share < 1:
            self.wfile.flush()
            return self.drop()
        time.sleep(pause)
        self.wfile.write(body[half:])

    def forward(self, body):
        upstream = http.client.HTTPConnection(self.server.upstream.hostname, self.server.upstream.port, timeout=60)
        unwanted = ("host", "connection", "transfer-encoding", "content-length", "expect", "accept-encoding")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in unwanted}
        upstream.request(self.command, self.path, body, headers | {"content-length": str(len(body))})
        reply = upstream.getresponse()
        kept = [(name, value) for name, value in reply.getheaders() if name.lower() not in ("content-length", "transfer-encoding", "connection")]
        return reply.status, kept, reply.read()

    def partial(self, body):
        """What a node says that has no room for all of it."""
        rows = body.splitlines(keepends=True)
        pairs = list(zip(rows[::2], rows[1::2]))
        kept = [number for number, (action, _) in enumerate(pairs) if hashlib.sha256(action).digest()[0] % 2]
        refused = {"type": "es_rejected_execution_exception", "reason": "rejected execution of coordinating operation"}
        items = [{"index": json.loads(action)["index"] | {"status": 429, "error": refused}} for action, _ in pairs]
        headers = [("content-type", "application/json")]
        if kept:
            status, headers, said = self.forward(b"".join(row for number in kept for row in pairs[number]))
            if status != 200:
                return status, headers, said
            for number, item in zip(kept, json.loads(said)["items"]):
                items[number] = item
        return 200, headers, json.dumps({"took": 1, "errors": True, "items": items}).encode()

    def serve(self):
        identity = f"{self.command} {self.path} {self.headers.get('content-length')}"
        harm = self.server.next_harm(identity)
        if harm == "early":
            self.body(0.5)
            return self.drop()
        body = self.body()
        if self.server.check:
            try:
                self.server.check(self.command, self.path, self.headers, body)
            except Exception as wrong:
                self.server.wrong.append(repr(wrong))
                return self.answer(403, [("content-type", "application/json")], b'{"message":"The request signature we calculated does not match"}')
        if harm == "reset":
            return self.drop()
        if harm in ("429", "500", "503"):
            later = [("retry-after", "1")] if harm == "429" else []
            return self.answer(int(harm), [("content-type", "application/json"), *later], b'{"message":"not now"}')
        if harm == "partial" and self.path.partition("?")[0].endswith("/_bulk"):
            return self.answer(*self.partial(body))
        reply = self.forward(body)
        if harm == "lost":
            return self.drop()
        self.answer(*reply, pause=1.0 if harm == "slow" else 0.0, share=0.5 if harm == "cut" else 1.0)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve


class Cut(socketserver.ThreadingTCPServer):
    """Passes bytes on. The first connections end after so many bytes from the client, one number each."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port, limits):
        self.target, self.limits, self.lock, self.connections = port, list(limits), threading.Lock(), 0
        super().__init__(("127.0.0.1", 0), CutHandler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass


class CutHandler(socketserver.BaseRequestHandler):
    def handle(self):
        with self.server.lock:
            self.server.connections += 1
            left = self.server.limits.pop(0) if self.server.limits else float("inf")
        upstream = socket.create_connection(("127.0.0.1", self.server.target))

        def back():
            try:
                while data := upstream.recv(65536):
                    self.request.sendall(data)
            except OSError:
                pass

        threading.Thread(target=back, daemon=True).start()
        try:
            while left > 0 and (data := self.request.recv(65536)):
                data = data[: int(min(left, len(data)))]
                left -= len(data)
                upstream.sendall(data)
        finally:
            for end in (self.request, upstream):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            upstream.close()


class Tls(socketserver.ThreadingTCPServer):
    """Encrypts for a PostgreSQL that cannot, with a certificate of an authority of its own."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port, folder, name="localhost"):
        self.target, self.authority = port, folder / "authority.pem"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate(folder, self.authority, name))
        super().__init__(("127.0.0.1", 0), TlsHandler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass


class TlsHandler(socketserver.BaseRequestHandler):
    def handle(self):
        # What a client asks for encryption with, before anything else.
        assert self.request.recv(8) == struct.pack(">II", 8, 80877103)
        self.request.sendall(b"S")
        with self.server.context.wrap_socket(self.request, server_side=True) as inner:
            with socket.create_connection(("127.0.0.1", self.server.target)) as upstream:
                threading.Thread(target=pass_on, args=(upstream, inner), daemon=True).start()
                pass_on(inner, upstream)


def pass_on(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass


def certificate(folder, authority, name):
    """A file of a certificate for a name with its key, and that of the authority that has signed it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def build(subject, key, issuer, signer, *extensions):
        now = datetime.datetime.now(datetime.timezone.utc)
        names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in (subject, issuer)]
        builder = x509.CertificateBuilder(names[1], names[0], key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority.write_bytes(build("authority", root, "authority", root, x509.BasicConstraints(ca=True, path_length=None)))
    leaf = build(name, key, "authority", root, x509.SubjectAlternativeName([x509.DNSName(name)]), x509.BasicConstraints(ca=False, path_length=None))
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(leaf + secret)
    return folder / "server.pem"


def signature(service, secret, token=None):
    """A check of AWS's signature, version 4, made again with AWS's own code from what was signed."""
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    def check(method, path, headers, body):
        scheme, _, rest = headers["authorization"].partition(" ")
        parts = dict(part.strip().split("=", 1) for part in rest.split(","))
        key, date, region, named, end = parts["Credential"].split("/")
        assert (scheme, named, end) == ("AWS4-HMAC-SHA256", service, "aws4_request"), rest
        names = parts["SignedHeaders"].split(";")
        assert "host" in names and "x-amz-date" in names and names == sorted(names), names
        assert not token or (headers["x-amz-security-token"] == token and "x-amz-security-token" in names)
        told = headers.get("x-amz-content-sha256")
        assert told in (None, "UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()) or told.startswith("STREAMING-"), told
        request = AWSRequest(method, f"http://{headers['host']}{path}", data=body, headers={name: headers[name] for name in names})
        request.context["timestamp"] = headers["x-amz-date"]
        assert headers["x-amz-date"].startswith(date)
        signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(key, secret, token), service, region)
        canonical = signer.canonical_request(request)
        assert signer.signature(signer.string_to_sign(request, canonical), request) == parts["Signature"], canonical

    return check
