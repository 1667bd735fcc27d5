"""A receiver of webhooks, which answers as a test tells it, over real sockets."""

import base64
import datetime
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
OTHER_SECRET = f"whsec_{base64.b64encode(bytes(range(32, 64))).decode()}"


class Request(NamedTuple):
    """What has come."""

    path: str
    headers: dict[str, str]
    body: str


class Receiver:
    """A server in threads; ``answers`` are given in turn, and 200 when none is left."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.answered = 0
        self.answers: list[tuple[int, dict[str, str], str]] = []
        # What a request waits for before it is answered, and before its connection is closed.
        self.opened, self.closed = threading.Event(), threading.Event()
        self.opened.set()
        self.closed.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.path, headers, self.rfile.read(length).decode())
                receiver.requests.append(request)
                receiver.opened.wait(20)
                answers = receiver.answers
                status, more, text = answers.pop(0) if answers else (200, {}, "")
                try:
                    self.send_response(status)
                    for name, value in {"content-length": str(len(text)), **more}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text.encode())
                    receiver.answered += 1
                    receiver.closed.wait(20)
                except OSError:  # the sender waits no longer
                    self.close_connection = True

            do_GET = do_POST

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.scheme = "http"
        if certificate is not None:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def url(self, host: str = "127.0.0.1", path: str = "/hook?a=1") -> str:
        """Return its address under one of its names."""
        return f"{self.scheme}://{host}:{self.port}{path}"

    def answer(self, status: int, text: str = "", **headers: str) -> None:
        """Have it answer the next request that has no answer yet in this way."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, more, text))

    def close(self) -> None:
        """End it."""
        self.opened.set()
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def write_certificate(path: Path, *names: str) -> Path:
    """Write a key and a certificate that vouches for names, and for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    encoding, key_format = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = key.private_bytes(encoding, key_format, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(encoding))
    return path
