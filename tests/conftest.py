"""What every test may use: a database of its own run, and its address for other processes."""

import os
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest
from django.db import connection

TEST_DATABASE = "test_messaging_"


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Give each run a database of its own, so that two runs in one checkout do not meet."""
    from django.conf import settings

    database = settings.DATABASES["default"]
    if database["ENGINE"] == "config.embedded":
        _drop_databases_of_ended_runs()
        database["TEST"] = {**database.get("TEST", {}), "NAME": f"{TEST_DATABASE}{os.getpid()}"}


def _drop_databases_of_ended_runs() -> None:
    from config.embedded import postgres

    with psycopg.connect(postgres.url("postgres"), autocommit=True) as server:
        names = "SELECT datname FROM pg_database WHERE datname LIKE %s"
        for (name,) in server.execute(names, [f"{TEST_DATABASE}%"]).fetchall():
            run = name.removeprefix(TEST_DATABASE)
            if run.isdigit() and not psutil.pid_exists(int(run)):
                # Two runs that start together both see it.
                with suppress(psycopg.errors.UndefinedDatabase):
                    server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def database_url(transactional_db: None) -> str:
    """Return the `DATABASE_URL` of the test database, for processes that a test starts."""
    with connection.cursor():
        found: dict[str, Any] = connection.settings_dict
    user, password = quote(found["USER"], safe=""), quote(found["PASSWORD"], safe="")
    host = quote(found["HOST"], safe="")
    return f"postgresql://{user}:{password}@{host}:{found['PORT']}/{found['NAME']}"
