"""The site as it is served, for clients that come by the network."""

import asyncio
import http.client
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
from django.conf import settings

PATIENCE = 20


class Site:
    """The site as it is served, on one port for all of its lives."""

    def __init__(self, database_url: str, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = os.environ | {
            "DATABASE_URL": database_url,
            "DJANGO_SETTINGS_MODULE": "config.settings",
        }
        self._log = log.open("w")
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "daphne", "--bind", "127.0.0.1", "--port", str(self.port)]
        self._process = subprocess.Popen(
            [*command, "config.asgi:application"],
            cwd=settings.BASE_DIR,
            env=self._environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not await asyncio.to_thread(self._answers):
            assert asyncio.get_running_loop().time() < deadline, "the site does not start"
            await asyncio.sleep(0.05)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/messaging/")
            return connection.getresponse().status == 302
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """Kill it, as a crash would: nobody says goodbye to the browser."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        self._log.close()

    @property
    def resident(self) -> int:
        """How much memory it takes, bytes."""
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)
