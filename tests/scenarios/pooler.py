"""Pooler: a PgBouncer in front of the scenarios' server, and a database reached through it."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg
from machinery import Database, Server, wait_until

from config.embedded.account import as_account, give

# Debian keeps it where only root looks for programs.
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SETTINGS = """
[databases]
* = host=127.0.0.1 port={server.port} user=messaging password={server.password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
logfile = {folder}/log
"""


class Pooler:
    """A PgBouncer that gives sessions away for a transaction, to as many clients as come."""

    def __init__(self, server: Server, *, size: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="scenarios-pooler-"))
        give(self.folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._settings = self.folder / "pgbouncer.ini"
        self._settings.touch(mode=0o600)
        self._settings.write_text(
            SETTINGS.format(server=server, port=self.port, size=size, folder=self.folder)
        )
        give(self._settings)

    def start(self) -> None:
        """Start it and wait until it lets clients in."""
        assert PROGRAM, "pgbouncer is not installed"
        self.process = subprocess.Popen([PROGRAM, "-q", str(self._settings)], **as_account())
        wait_until(self._is_ready, report=lambda: (self.folder / "log").read_text())

    def _is_ready(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def remove(self) -> None:
        """End it and delete all it kept."""
        self.kill()
        shutil.rmtree(self.folder)

    def url(self, database: str) -> str:
        """Return the address of a database through it."""
        return f"postgresql://messaging@127.0.0.1:{self.port}/{database}"


class PooledDatabase(Database):
    """A database whose processes come through a pooler; it is looked at past that."""

    def __init__(self, database: Database, pooler: Pooler, **messaging: Any) -> None:
        vars(self).update(vars(database))
        self.pooler = pooler
        self.messaging = messaging

    def environment(self) -> dict[str, str]:
        """Return the environment of processes that work on this database."""
        return {
            **super().environment(),
            "DATABASE_URL": self.pooler.url(self.name),
            "TRIALS_MESSAGING": json.dumps(self.messaging),
        }

    @property
    def listeners(self) -> int:
        """How many sessions of the server have listened."""
        return int(
            self.value(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN%%'"
            )
        )
