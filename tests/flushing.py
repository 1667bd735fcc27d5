"""Flush: after a test that commits, empty the tables that it wrote to, and no others.

Django empties all of them, and then has every permission of every app stored again: that takes
longer than most of these tests.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db.backends.postgresql.operations import DatabaseOperations

# What migrating stores in them is the same before and after each test.
KEPT = {"django_content_type", "auth_permission"}

# Not only tables with rows: what was deleted or rolled back also leaves a file that has grown.
# A table can only be truncated together with those that refer to it.
WRITTEN = """
    WITH RECURSIVE written AS (
        SELECT oid FROM pg_class
        WHERE oid = ANY (%s::text[]::regclass[]) AND pg_relation_size(oid) > 0
        UNION
        SELECT conrelid FROM pg_constraint JOIN written ON confrelid = written.oid
        WHERE contype = 'f'
    )
    SELECT oid::regclass::text FROM written
"""

flush_all = DatabaseOperations.sql_flush


def flush_written(
    operations: DatabaseOperations, style: Any, tables: list[str], **options: Any
) -> list[str]:
    """Return the statements that empty those of the tables that were written to."""
    asked = [operations.quote_name(table) for table in tables if table not in KEPT]
    with operations.connection.cursor() as cursor:
        cursor.execute(WRITTEN, [asked])
        written = [table for (table,) in cursor.fetchall()]
    return flush_all(operations, style, written, **options)


@contextmanager
def only_what_was_written() -> Iterator[None]:
    """Have Django flush that way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatabaseOperations, "sql_flush", flush_written)
        yield
