"""A way to the database that is cut at a chosen moment."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum

from django.db import connections


class Cut(Enum):
    """When to cut: at the first message from the client that holds the word looked for."""

    BEFORE = "before the server sees it"
    AFTER = "after the server has answered it, before the client hears of it"


class Way:
    """Carries bytes between clients and a server on this host, until it is told to cut."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._word = b""
        self._cut: Cut | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, when: Cut, word: str = "") -> None:
        """Cut once, at the next message from the client that holds the word."""
        self._word = word.encode()
        self._cut = when

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), client, server:
            while True:
                readable, _, _ = select.select([client, server], [], [])
                if server in readable:
                    answer = server.recv(65_536)
                    if not answer:
                        return
                    client.sendall(answer)
                if client in readable:
                    question = client.recv(65_536)
                    if not question:
                        return
                    if self._cut is None or self._word not in question:
                        server.sendall(question)
                        continue
                    cut, self._cut = self._cut, None
                    if cut is Cut.AFTER:
                        server.sendall(question)
                        server.recv(65_536)
                    return


@contextmanager
def another_way(alias: str) -> Iterator[Way]:
    """Give the test's database a second alias, on a way that can be cut."""
    near = connections.settings["default"]
    found = connections["default"].settings_dict
    way = Way(found["HOST"], int(found["PORT"]))
    plainly = {"sslmode": "disable", "gssencmode": "disable"}
    connections.settings[alias] = {
        **near,
        "NAME": found["NAME"],
        "HOST": "127.0.0.1",
        "PORT": str(way.port),
        "USER": found["USER"],
        "PASSWORD": found["PASSWORD"],
        "OPTIONS": {**near.get("OPTIONS", {}), **plainly},
        "ENGINE": "django.db.backends.postgresql",
        # Emptied once after a test: what is declared comes back under the first alias only.
        "TEST": {**near["TEST"], "MIRROR": "default"},
    }
    yield way
    connections[alias].close()
    del connections[alias], connections.settings[alias]
    way.close()
