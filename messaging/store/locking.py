"""Lock tables for a moment, and give up where somebody has them for longer."""

from collections.abc import Sequence
from typing import LiteralString

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors

from .connection import run

LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %s, true)"


def lock(
    connection: BaseDatabaseWrapper, statements: Sequence[LiteralString], seconds: float
) -> None:
    """Take locks until this transaction ends; TimeoutError where one takes longer than so long."""
    before = run(connection, "SELECT current_setting('lock_timeout')")[0][0]
    run(connection, LOCK_TIMEOUT, (f"{seconds * 1000:.0f}ms",))
    try:
        for statement in statements:
            run(connection, statement)
    except OperationalError as error:
        if isinstance(error.__cause__, errors.LockNotAvailable | errors.DeadlockDetected):
            raise TimeoutError from error
        raise
    run(connection, LOCK_TIMEOUT, (before,))
