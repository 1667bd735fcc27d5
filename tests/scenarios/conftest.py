"""What the scenarios start from: a server for all, a database for each, workers that are ended."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from machinery import Database, Server, Worker, wait_until

from messaging import send_many

ALIAS = "scenario"
# These begin first, so that no process is left with one of them when the others are done.
LONGEST = {
    "test_replay_under_kills.py",
    "test_keys_under_kills.py",
    "test_conservation.py",
}
numbers = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Return a PostgreSQL server that only the scenarios use."""
    server = Server()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def migrated(server: Server) -> str:
    """Return the name of a migrated database to copy."""
    server.execute("CREATE DATABASE migrated")
    done = Database(server, "migrated").manage("migrate", "--verbosity=0")
    assert done.returncode == 0, done.stderr
    return "migrated"


@pytest.fixture
def database(server: Server, migrated: str, tmp_path: Path) -> Iterator[Database]:
    """Return a migrated database with nothing in it, for one scenario."""
    name = f"scenario_{next(numbers)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {migrated}")
    yield Database(server, name, tmp_path / "journal")
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def send_all(database: Database, django_db_blocker: Any) -> Iterator[Callable[..., list[int]]]:
    """Return a function that sends bodies to a queue, all in one transaction."""
    entry = dict(connections["default"].settings_dict)
    entry.update(
        ENGINE="django.db.backends.postgresql", NAME=database.name, HOST="127.0.0.1",
        PORT=database.server.port, USER="messaging", PASSWORD=database.server.password,
    )  # fmt: skip
    connections.settings[ALIAS] = entry

    def send_all(queue: str, bodies: list[Any], **options: Any) -> list[int]:
        try:
            return list(send_many(queue, bodies, using=ALIAS, **options))
        finally:
            connections[ALIAS].close()

    with django_db_blocker.unblock():
        yield send_all
    del connections[ALIAS]
    del connections.settings[ALIAS]


@pytest.fixture
def start_worker(database: Database, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Return a function that starts `runworker`; nothing of it outlives the test."""
    workers: list[Worker] = []

    def start(*arguments: object, ready: int = 0, command: str = "runworker") -> Worker:
        """Start it, and wait for the first sign of life of that many processes."""
        worker = Worker(database, tmp_path / f"worker-{len(workers)}.log", arguments, command)
        workers.append(worker)
        if ready:
            wait_until(
                lambda: not worker.is_running or is_ready(worker, ready),
                report=lambda: worker.output,
            )
            assert worker.is_running, worker.output
        return worker

    def is_ready(worker: Worker, processes: int) -> bool:
        return database.workers >= processes and len(worker.children) == processes

    yield start
    for worker in workers:
        worker.destroy()
