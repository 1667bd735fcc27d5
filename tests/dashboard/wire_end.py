"""A client's end of the event socket that comes by the network, byte by byte (RFC 6455)."""

import base64
import json
import os
import socket
import struct
from typing import Any, BinaryIO, NamedTuple

from django.test import Client
from serving import PATIENCE, Site
from socket_end import PATH

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
# Has a socket that is closed say nothing more, as when a cable is cut.
AT_ONCE = struct.pack("ii", 1, 0)


class Closed(NamedTuple):
    """The code that the server closes with."""

    code: int


class Wire:
    """One connection, which reads only when it is told to."""

    def __init__(self, site: Site, client: Client) -> None:
        cookie = next(iter(client.cookies.values()))
        self._socket = socket.create_connection(("127.0.0.1", site.port), timeout=PATIENCE)
        self._file: BinaryIO = self._socket.makefile("rb")
        lines = [
            f"GET {PATH} HTTP/1.1",
            f"Host: 127.0.0.1:{site.port}",
            f"Origin: {site.url}",
            f"Cookie: {cookie.key}={cookie.value}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        status = self._file.readline()
        assert b" 101 " in status, status
        while self._file.readline().strip():
            pass

    def say(self, kind: str, **content: Any) -> None:
        """Send a frame."""
        self._send(TEXT, json.dumps({"type": kind, **content}).encode())

    def hear(self) -> dict[str, Any] | Closed:
        """Return the next frame, or the code of the close."""
        while True:
            first, second = self._file.read(2)
            size = second & 0x7F
            if size > 125:
                wide = 2 if size == 126 else 8
                size = int.from_bytes(self._file.read(wide), "big")
            content = self._file.read(size)
            match first & 0x0F:
                case 0x8:
                    return Closed(int.from_bytes(content[:2], "big"))
                case 0x9:
                    self._send(PONG, content)
                case 0x1:
                    frame: dict[str, Any] = json.loads(content)
                    if frame["type"] != "ping":
                        return frame
                    self.say("pong")

    def subscribe(self, topic: str, resume: str | None, credit: int) -> str:
        """Subscribe, hear that it is so, and return the position."""
        self.say("subscribe", topic=topic, resume=resume, credit=credit)
        frame = self.hear()
        assert isinstance(frame, dict), frame
        assert frame["type"] == "subscribed", frame
        position: str = frame["position"]
        return position

    def cut(self) -> None:
        """Be gone without a goodbye."""
        self._file.close()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        self._socket.close()

    def _send(self, kind: int, content: bytes) -> None:
        # A mask of zeros is one, and leaves the text as it is.
        size = len(content)
        head = bytes([0x80 | kind, 0x80 | size]) if size < 126 else (
            bytes([0x80 | kind, 0x80 | 126]) + size.to_bytes(2, "big")
        )  # fmt: skip
        self._socket.sendall(head + bytes(4) + content)
