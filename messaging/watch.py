"""Watch: see what a handler does to the connection of its transaction, and undo it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

SAVEPOINT = "SAVEPOINT messaging_handler"
ROLLBACK = "ROLLBACK TO SAVEPOINT messaging_handler"
RELEASE = "RELEASE SAVEPOINT messaging_handler"
# "ROLLBACK TO SAVEPOINT" is how Django leaves an inner atomic() block.
ENDS_TRANSACTION = re.compile(
    r"\s*(COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(WORK\s+|TRANSACTION\s+)?TO))\b",
    re.IGNORECASE,
)


class Watch:
    """Sees a handler's first use of the database, and opens the savepoint that could undo it.

    A handler that uses no database costs no round trip. Django and psycopg make a cursor for
    whatever they run; the statements of this package pass Django's execute wrappers.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._hooks = 0
        self._blocks = 0
        self._savepoints = 0
        self.touched = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the connection during a block."""
        raw = self._connection.connection
        factory = raw.cursor_factory

        def make_cursor(*args: Any, **kwargs: Any) -> Any:
            self._touch()
            return factory(*args, **kwargs)

        self._connection.execute_wrappers.append(self._on_execute)
        raw.cursor_factory = make_cursor
        try:
            yield
        finally:
            raw.cursor_factory = factory
            self._connection.execute_wrappers.remove(self._on_execute)

    def _on_execute(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        if isinstance(sql, str) and ENDS_TRANSACTION.match(sql):
            raise TransactionManagementError(
                f"A handler cannot end the transaction that holds its message ({sql[:40].strip()}):"
                f" return to commit, raise to roll back."
            )
        self._touch()
        return execute(sql, params, many, context)

    def _touch(self) -> None:
        if not self.touched:
            self._run(SAVEPOINT)
            self.touched = True

    def begin(self) -> None:
        """Be ready for the next handler; need not be called again after one that did nothing."""
        self._hooks = len(self._connection.run_on_commit)
        self._blocks = len(self._connection.atomic_blocks)
        self._savepoints = len(self._connection.savepoint_ids)
        self.touched = False

    def undo(self) -> None:
        """Roll back what the handler did, and forget what it wanted done after the commit."""
        if self.touched:
            self._run(ROLLBACK)
        self._connection.needs_rollback = False
        # A timeout may come while an atomic() block of the handler is being entered or left.
        del self._connection.atomic_blocks[self._blocks :]
        del self._connection.savepoint_ids[self._savepoints :]
        del self._connection.run_on_commit[self._hooks :]

    def keep(self) -> None:
        """Keep what the handler did; its hooks cannot take those of others with them."""
        hooks: list[Any] = self._connection.run_on_commit
        if len(hooks) > self._hooks:
            hooks[self._hooks :] = [(ids, hook, True) for ids, hook, _ in hooks[self._hooks :]]
            self._hooks = len(hooks)

    def release(self) -> None:
        """Give up the savepoint, before the next handler gets one."""
        if self.touched:
            self._run(RELEASE)

    def _run(self, sql: LiteralString) -> None:
        with (
            self._connection.wrap_database_errors,
            psycopg.Cursor(self._connection.connection) as cursor,
        ):
            cursor.execute(sql)
