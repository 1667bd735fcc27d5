"""What mutants are planted in: a copy of the checkout, and a database for its tests."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from planting import Copy


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """Copy the checkout, and drop at the end the database that the tests in the copy made."""
    server = urlsplit(_database_url())
    # Named so that a later run drops what this one could not.
    name = f"messaging_mutants_{os.getpid()}"
    root = tmp_path_factory.mktemp("mutants") / "checkout"
    yield Copy(root, urlunsplit(server._replace(path=f"/{name}")))
    postgres = urlunsplit(server._replace(path="/postgres"))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "test_{name}" WITH (FORCE)')


def _database_url() -> str:
    if url := os.environ.get("DATABASE_URL"):
        return url
    from config.embedded import postgres

    return str(postgres.url())
