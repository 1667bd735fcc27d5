"""Commits: say which messages are uncertain when the connection dies during COMMIT."""

from collections.abc import Callable, Sequence
from functools import partial

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import PublishUncertain
from .connection import is_lost


class AfterCommit:
    """What is to be done after the commit of some messages.

    Django keeps it with the transaction, and drops it with a savepoint that is rolled back: so the
    hooks that are left at the COMMIT name the messages that it stores.
    """

    def __init__(self, ids: Sequence[object], act: Callable[[], None]) -> None:
        self.ids = ids
        self.act = act
        # What Django calls a hook that has failed.
        self.__qualname__ = type(self).__name__

    def __call__(self) -> None:
        self.act()


def watch_commit(connection: BaseDatabaseWrapper) -> None:
    """Have the next COMMIT of this connection say which messages it leaves uncertain."""
    own = connection.__dict__
    if "_commit" not in own:
        own["_commit"] = partial(_commit, connection)


def _commit(connection: BaseDatabaseWrapper) -> None:
    del connection.__dict__["_commit"]
    try:
        connection._commit()  # type: ignore[attr-defined]
    except DatabaseError as error:
        hooks = [hook for _, hook, *_ in connection.run_on_commit]
        ids = [each for hook in hooks if isinstance(hook, AfterCommit) for each in hook.ids]
        if ids and is_lost(connection, error):
            raise PublishUncertain(ids) from error
        raise
