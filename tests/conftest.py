"""What every test may use: databases of its own run, other sessions, and conditions to wait for."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest
from django.conf import settings
from django.core.signals import setting_changed
from django.db import connection, connections
from django.test import TransactionTestCase
from pristine import Pristine
from psycopg.conninfo import make_conninfo
from receiver import Receiver

from messaging import conf

PREFIX = "test_messaging_"
LEFT_OUT = pytest.StashKey[int]()
WAITERS = """
    SELECT count(DISTINCT pid) FROM pg_locks
    WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a browser where there is none; never in CI, which installs one."""
    if shutil.which("chromium") or os.environ.get("CI"):
        return
    in_browser = [item for item in items if item.get_closest_marker("browser")]
    if in_browser:
        config.hook.pytest_deselected(items=in_browser)
        items[:] = [item for item in items if item not in in_browser]
        config.stash[LEFT_OUT] = len(in_browser)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud that tests were left out."""
    if count := terminalreporter.config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{count} tests need a browser: apt install chromium")


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Give each run a database of its own, so that two runs in one checkout do not meet."""
    database = settings.DATABASES["default"]
    if database["ENGINE"] == "config.embedded":
        _drop_databases_of_ended_runs()
        connections["default"].settings_dict["TEST"]["NAME"] = f"{PREFIX}{os.getpid()}"


def _drop_databases_of_ended_runs() -> None:
    from config.embedded import postgres

    with psycopg.connect(postgres.url("postgres"), autocommit=True) as server:
        names = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
        for (name,) in server.execute(names, [PREFIX]).fetchall():
            run = name.rpartition("_")[2]
            if run.isdigit() and not psutil.pid_exists(int(run)):
                # Two runs that start together both see it.
                with suppress(psycopg.errors.InvalidCatalogName):
                    server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Make the database, and clean up after tests that commit by giving its first rows back."""
    with django_db_blocker.unblock():
        pristine = Pristine()
    by_truncating = TransactionTestCase._fixture_teardown

    def clean_up(case: TransactionTestCase) -> None:
        if not pristine.restore():
            by_truncating(case)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", clean_up)
        yield


@pytest.fixture
def way_past_a_pooler(django_db_setup: None) -> Iterator[None]:
    """Have LISTEN_URL lead to the server that DIRECT_URL names, where DATABASE_URL does not.

    As its default, since tests put settings of their own in the place of the site's.
    """
    with pytest.MonkeyPatch.context() as patch:
        if address := os.environ.get("DIRECT_URL"):
            direct = make_conninfo(address, dbname=connection.settings_dict["NAME"])
            patch.setitem(conf.DEFAULTS, "LISTEN_URL", direct)
            read_settings_again()
        yield
    read_settings_again()


def read_settings_again() -> None:
    """Forget which settings of the app were read."""
    setting_changed.send(sender=None, setting="MESSAGING", value=None, enter=True)


@pytest.fixture
def database_url(transactional_db: None) -> str:
    """Return the `DATABASE_URL` of the test database, for processes that a test starts."""
    connection.ensure_connection()
    found: dict[str, Any] = connection.settings_dict
    user, password = quote(found["USER"], safe=""), quote(found["PASSWORD"], safe="")
    return f"postgresql://{user}:{password}@{found['HOST']}:{found['PORT']}/{found['NAME']}"


@pytest.fixture
def empty_database() -> Iterator[dict[str, Any]]:
    """Return the `DATABASES` entry of a new database, for a project that a test makes."""
    name = f"{PREFIX}empty_{os.getpid()}"
    address = {**connection.get_connection_params(), "dbname": "postgres"}
    with psycopg.connect(**address, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        found = {key: connection.settings_dict[key] for key in ("HOST", "PORT", "USER", "PASSWORD")}
        yield {"ENGINE": "django.db.backends.postgresql", "NAME": name, **found}
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def elsewhere(transactional_db: None) -> Iterator[Callable[..., Future[Any]]]:
    """Return a function that calls another in a thread with a connection of its own."""

    def closing(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        finally:
            connections.close_all()

    with ThreadPoolExecutor() as threads:
        yield lambda function, *args, **kwargs: threads.submit(closing, function, *args, **kwargs)


@pytest.fixture
def until() -> Callable[..., None]:
    """Return a function that waits for a condition, and fails when it does not come true."""

    def wait(condition: Callable[[], object], seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} seconds"
            time.sleep(0.005)

    return wait


@pytest.fixture
def waiters(transactional_db: None) -> Callable[[], int]:
    """Return a function that counts the sessions that wait for this one's transaction."""

    def count() -> int:
        with connection.cursor() as cursor:
            cursor.execute(WAITERS)
            return int(cursor.fetchone()[0])

    return count


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a receiver that answers 200 unless it is told otherwise."""
    receiver = Receiver()
    yield receiver
    receiver.close()
