"""The checkout's own database: found, started and shared, wherever the checkout lies."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from config import embedded

DEADLINE = 30  # seconds


class Checkout:
    """A folder with a copy of `config.embedded`, and so with a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = folder / ".data" / "postgres"
        shutil.copytree(Path(embedded.__file__).parent, folder / "config" / "embedded")
        (folder / "config" / "__init__.py").touch()

    def process(self, *arguments: str, **options: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
            **options,  # type: ignore[call-overload]
        )

    def command(self, name: str) -> str:
        process = self.process("-m", "config.embedded", name)
        output, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
        return str(output).strip()

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(self.command("url"), autocommit=True)

    def server(self) -> psutil.Process:
        return psutil.Process(int((self.cluster / "postmaster.pid").read_text().split()[0]))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout whose path is private to its owner, has a space, and is too long for a socket."""
    folder = tmp_path_factory.mktemp("checkout") / "a folder" / ("deep" * 20) / ("deeper" * 10)
    folder.mkdir(parents=True)
    folder.parent.chmod(0o700)
    made = Checkout(folder)
    yield made
    made.command("stop")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "The condition did not come true in time"
        time.sleep(0.02)


def test_the_database_outlives_the_process_that_started_it(checkout: Checkout) -> None:
    assert len(str(checkout.folder)) > 107
    starter = checkout.process(
        "-c", "from config.embedded import postgres; print(postgres.url(), flush=True); input()",
        stdin=subprocess.PIPE,
    )  # fmt: skip
    address = starter.stdout.readline().strip()  # type: ignore[union-attr]
    starter.kill()
    starter.communicate()

    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("messaging",)


def test_an_acknowledged_commit_survives_a_power_cut(checkout: Checkout) -> None:
    with checkout.connect() as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)


def test_a_killed_server_starts_again_with_what_was_committed(checkout: Checkout) -> None:
    with checkout.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
        checkout.server().kill()

    with checkout.connect() as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (1,)


def test_a_left_over_process_number_of_somebody_else_is_no_server(checkout: Checkout) -> None:
    checkout.command("stop")
    stale = f"{os.getpid()}\n{checkout.cluster}\n0\n1\n\n127.0.0.1\n0\nready\n"
    (checkout.cluster / "postmaster.pid").write_text(stale)
    assert "does not run" in checkout.command("status").splitlines()[0]

    with checkout.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_processes_that_start_at_once_share_one_server(checkout: Checkout) -> None:
    checkout.command("stop")
    starters = [checkout.process("-m", "config.embedded", "url") for _ in range(4)]
    addresses = {starter.communicate(timeout=DEADLINE)[0] for starter in starters}

    assert len(addresses) == 1
    psycopg.connect(addresses.pop().strip()).close()


def test_the_database_keeps_its_address_when_it_is_restarted(checkout: Checkout) -> None:
    before = checkout.command("url")
    checkout.command("stop")
    assert checkout.command("url") == before


def test_a_taken_port_is_given_up_for_a_free_one(checkout: Checkout) -> None:
    checkout.command("stop")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int((checkout.folder / ".data" / "postgres.port").read_text())))
        other.listen()
        with checkout.connect() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_ctrl_c_in_the_terminal_does_not_reach_the_database(checkout: Checkout) -> None:
    checkout.command("stop")
    starter = checkout.process(
        "-c", "from config.embedded import postgres; print(postgres.url(), flush=True); input()",
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )  # fmt: skip
    starter.stdout.readline()  # type: ignore[union-attr]
    os.killpg(starter.pid, signal.SIGINT)
    starter.communicate(timeout=DEADLINE)

    assert "PostgreSQL runs" in checkout.command("status")
    assert os.getpgid(checkout.server().pid) != starter.pid


def test_other_users_of_the_machine_need_the_password(checkout: Checkout) -> None:
    address = checkout.command("url")
    password = (checkout.folder / ".data" / "postgres.password").read_text()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(address.replace(password, "guessed"))
    assert (checkout.folder / ".data" / "postgres.password").stat().st_mode & 0o077 == 0


def test_stopping_leaves_no_process(checkout: Checkout) -> None:
    checkout.connect().close()
    server = checkout.server()
    processes = [server, *server.children(recursive=True)]
    checkout.command("stop")
    wait_until(lambda: not any(process.is_running() for process in processes))


def test_valkey_starts_when_a_queue_of_django_rq_first_connects(checkout: Checkout) -> None:
    code = (
        "from config.embedded.valkey import OnDemandQueue, running;"
        "from django.conf import settings;"
        "settings.configure(RQ_QUEUES={'default': OnDemandQueue()});"
        "import django_rq;"
        "queue = django_rq.get_queue() if running() is None else None;"
        "print(queue.connection.ping())"
    )
    output, _ = checkout.process("-c", code).communicate(timeout=DEADLINE)
    assert output.strip() == "True"
    assert "Valkey runs" in checkout.command("status")
