"""Health: answer over HTTP whether the worker is well, between two turns of the supervisor.

No thread serves it, because the supervisor forks.
"""

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

# A client that has not asked in this time, or asks for more than this, is sent away.
PATIENCE = 5.0
MAX_REQUEST = 8192
MAX_CLIENTS = 64


class Health:
    """Answers GET /healthz with 200 or 503, and with the facts as JSON."""

    def __init__(self, address: tuple[str, int], facts: Callable[[], dict[str, Any]]) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listening = socket.create_server(address, family=family)
        self._listening.setblocking(False)
        self._facts = facts
        self._clients: dict[socket.socket, tuple[bytes, float]] = {}

    @property
    def sockets(self) -> list[socket.socket]:
        """What to wait for."""
        return [self._listening, *self._clients]

    def serve(self) -> None:
        """Take up and answer what has come, and wait for nothing."""
        with suppress(OSError):
            while len(self._clients) < MAX_CLIENTS:
                client, _ = self._listening.accept()
                client.setblocking(False)
                self._clients[client] = b"", time.monotonic() + PATIENCE
        for client in list(self._clients):
            self._hear(client)

    def _hear(self, client: socket.socket) -> None:
        request, until = self._clients[client]
        try:
            while b"\r\n\r\n" not in request:
                heard = client.recv(MAX_REQUEST)
                request += heard
                if not heard or len(request) > MAX_REQUEST:
                    return self._part(client)
            client.send(self._answer(request.split(b"\r\n", 1)[0]))
        except BlockingIOError:
            self._clients[client] = request, until
            if time.monotonic() < until:
                return None
        except OSError:
            pass
        return self._part(client)

    def _answer(self, line: bytes) -> bytes:
        method, _, rest = line.decode("latin-1").partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            status, facts = HTTPStatus.METHOD_NOT_ALLOWED, {"error": "Use GET."}
        elif path != "/healthz":
            status, facts = HTTPStatus.NOT_FOUND, {"error": "Ask for /healthz."}
        else:
            facts = self._facts()
            status = HTTPStatus.OK if facts["healthy"] else HTTPStatus.SERVICE_UNAVAILABLE
        body = json.dumps(facts).encode() + b"\n"
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nAllow: GET, HEAD\r\n"
            f"Connection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == "HEAD" else body)

    def _part(self, client: socket.socket) -> None:
        del self._clients[client]
        client.close()

    def close(self) -> None:
        """Give the port and all clients back."""
        for each in self.sockets:
            each.close()
        self._clients = {}
