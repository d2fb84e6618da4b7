"""Proxies between tealight and a server that inject deterministic faults."""

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

FAULTS = ["reset", "reset_after_half_request", "429", "500", "503", "slow_response", "response_lost", "response_truncated"]


def always(fault, times=2):
    """The same fault for the first attempts of every request."""
    return lambda _: [fault] * times


def mixed(seed, faults=FAULTS):
    """Up to three faults per request. They depend only on the seed and the request, not on the order of requests."""
    def plan(identity):
        rng = random.Random(f"{seed} {identity}")
        return rng.choices(faults, k=rng.randint(0, 3))

    return plan


class Proxy(http.server.ThreadingHTTPServer):
    """Forwards requests after injecting the faults planned for them.

    reset                      resets the connection before a response; the server does not receive the request
    reset_after_half_request   as reset, after half of the request has been read
    429, 500, 503              responds with this status instead of the server; 429 with a Retry-After of one second
    slow_response              sends the response in two parts with a pause between them
    response_lost              the server processes the request, but the connection is reset without a response
    response_truncated         as response_lost, after half of the response has been written
    partial_429                rejects about half of the documents of a _bulk request with status 429
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream, plan=always("", 0), port=0, check=None):
        self.upstream, self.plan, self.check = urllib.parse.urlparse(upstream), plan, check
        self.lock, self.attempts, self.retry_at = threading.Lock(), {}, {}
        self.injected, self.premature, self.check_errors = [], [], []
        super().__init__(("127.0.0.1", port), ProxyHandler)
        self.address = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def next_fault(self, identity):
        with self.lock:
            attempt = self.attempts[identity] = self.attempts.get(identity, -1) + 1
            if time.monotonic() < self.retry_at.pop(identity, 0):
                self.premature.append(identity)
            faults = self.plan(identity)
            fault = faults[attempt] if attempt < len(faults) else None
            if fault == "429":
                self.retry_at[identity] = time.monotonic() + 0.95
            self.injected.append(fault)
            return fault

    def handle_error(self, request, client_address):
        pass


class ProxyHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reset(self):
        """Resets the connection."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def read_body(self, fraction=1.0):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(int(self.headers.get("content-length", 0)) * fraction))

    def respond(self, status, headers, body, pause=0.0, fraction=1.0):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(body) // 2
        self.wfile.write(body[:half])
        if fraction < 1:
            self.wfile.flush()
            return self.reset()
        time.sleep(pause)
        self.wfile.write(body[half:])

    def forward(self, body):
        upstream = http.client.HTTPConnection(self.server.upstream.hostname, self.server.upstream.port, timeout=60)
        hop_headers = ("host", "connection", "transfer-encoding", "content-length", "expect", "accept-encoding")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in hop_headers}
        upstream.request(self.command, self.path, body, headers | {"content-length": str(len(body))})
        response = upstream.getresponse()
        response_headers = [(name, value) for name, value in response.getheaders() if name.lower() not in ("content-length", "transfer-encoding", "connection")]
        return response.status, response_headers, response.read()

    def respond_partially(self, body):
        """Responds like a node whose write queue accepts only some of the documents."""
        rows = body.splitlines(keepends=True)
        pairs = list(zip(rows[::2], rows[1::2]))
        accepted = [number for number, (action, _) in enumerate(pairs) if hashlib.sha256(action).digest()[0] % 2]
        rejection = {"type": "es_rejected_execution_exception", "reason": "rejected execution of coordinating operation"}
        items = [{"index": json.loads(action)["index"] | {"status": 429, "error": rejection}} for action, _ in pairs]
        headers = [("content-type", "application/json")]
        if accepted:
            status, headers, response = self.forward(b"".join(row for number in accepted for row in pairs[number]))
            if status != 200:
                return status, headers, response
            for number, item in zip(accepted, json.loads(response)["items"]):
                items[number] = item
        return 200, headers, json.dumps({"took": 1, "errors": True, "items": items}).encode()

    def serve(self):
        identity = f"{self.command} {self.path} {self.headers.get('content-length')}"
        fault = self.server.next_fault(identity)
        if fault == "reset_after_half_request":
            self.read_body(0.5)
            return self.reset()
        body = self.read_body()
        if self.server.check:
            try:
                self.server.check(self.command, self.path, self.headers, body)
            except Exception as error:
                self.server.check_errors.append(repr(error))
                return self.respond(403, [("content-type", "application/json")], b'{"message":"The request signature we calculated does not match"}')
        if fault == "reset":
            return self.reset()
        if fault in ("429", "500", "503"):
            retry_after = [("retry-after", "1")] if fault == "429" else []
            return self.respond(int(fault), [("content-type", "application/json"), *retry_after], b'{"message":"not now"}')
        if fault == "partial_429" and self.path.partition("?")[0].endswith("/_bulk"):
            return self.respond(*self.respond_partially(body))
        response = self.forward(body)
        if fault == "response_lost":
            return self.reset()
        self.respond(*response, pause=1.0 if fault == "slow_response" else 0.0, fraction=0.5 if fault == "response_truncated" else 1.0)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve


class TruncatingProxy(socketserver.ThreadingTCPServer):
    """Forwards bytes. Closes the first connections after the numbers of bytes from the client that `limits` lists, one per connection."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port, limits):
        self.target, self.limits, self.lock, self.connections = port, list(limits), threading.Lock(), 0
        super().__init__(("127.0.0.1", 0), TruncatingProxyHandler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass


class TruncatingProxyHandler(socketserver.BaseRequestHandler):
    def handle(self):
        with self.server.lock:
            self.server.connections += 1
            remaining = self.server.limits.pop(0) if self.server.limits else float("inf")
        upstream = socket.create_connection(("127.0.0.1", self.server.target))

        def forward_responses():
            try:
                while data := upstream.recv(65536):
                    self.request.sendall(data)
            except OSError:
                pass

        threading.Thread(target=forward_responses, daemon=True).start()
        try:
            while remaining > 0 and (data := self.request.recv(65536)):
                data = data[: int(min(remaining, len(data)))]
                remaining -= len(data)
                upstream.sendall(data)
        finally:
            for connection in (self.request, upstream):
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            upstream.close()


class TlsProxy(socketserver.ThreadingTCPServer):
    """Terminates TLS for a PostgreSQL without it, with a certificate from its own certificate authority."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port, folder, name="localhost"):
        self.target, self.authority = port, folder / "authority.pem"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate(folder, self.authority, name))
        super().__init__(("127.0.0.1", 0), TlsProxyHandler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass


class TlsProxyHandler(socketserver.BaseRequestHandler):
    def handle(self):
        # The SSLRequest message, which a client sends first.
        assert self.request.recv(8) == struct.pack(">II", 8, 80877103)
        self.request.sendall(b"S")
        with self.server.context.wrap_socket(self.request, server_side=True) as client:
            with socket.create_connection(("127.0.0.1", self.server.target)) as upstream:
                threading.Thread(target=forward_bytes, args=(upstream, client), daemon=True).start()
                forward_bytes(client, upstream)


def forward_bytes(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass


def certificate(folder, authority, name):
    """Writes a certificate for a name with its key, and the certificate of the authority that signed it. Returns the file of the certificate and key."""
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
    """A function that verifies an AWS signature (SigV4) by recomputing it with botocore."""
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    def check(method, path, headers, body):
        scheme, _, rest = headers["authorization"].partition(" ")
        parts = dict(part.strip().split("=", 1) for part in rest.split(","))
        key, date, region, scope_service, terminator = parts["Credential"].split("/")
        assert (scheme, scope_service, terminator) == ("AWS4-HMAC-SHA256", service, "aws4_request"), rest
        names = parts["SignedHeaders"].split(";")
        assert "host" in names and "x-amz-date" in names and names == sorted(names), names
        assert not token or (headers["x-amz-security-token"] == token and "x-amz-security-token" in names)
        payload_hash = headers.get("x-amz-content-sha256")
        assert payload_hash in (None, "UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()) or payload_hash.startswith("STREAMING-"), payload_hash
        request = AWSRequest(method, f"http://{headers['host']}{path}", data=body, headers={name: headers[name] for name in names})
        request.context["timestamp"] = headers["x-amz-date"]
        assert headers["x-amz-date"].startswith(date)
        signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(key, secret, token), service, region)
        canonical = signer.canonical_request(request)
        assert signer.signature(signer.string_to_sign(request, canonical), request) == parts["Signature"], canonical

    return check
