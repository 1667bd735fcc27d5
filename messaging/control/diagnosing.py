"""Say what is missing or misconfigured, each with the fix."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import psycopg
from django.core import checks as django_checks
from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import checks
from ..consuming import declarations
from ..store import doctoring, webhooks
from ..store.connection import connection_for
from ..sync import is_migrated, missing
from .webhooks import in_words

TRIGGERS = ["messaging_bind_subscription", "messaging_bind_topic", "messaging_join_lanes"]
# From when on something is worth a word, seconds or rows.
HOUR = 3_600.0
LONG_TRANSACTION = 300.0
MOST_DEAD_ROWS = 1_000_000
MOST_SKEW = 1.0
HEARD_WITHIN = 5.0


class Level(StrEnum):
    """How bad a finding is: an error keeps messages from going through."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was found, and what to do about it; ``what`` names the examination."""

    level: Level
    what: str
    text: str
    fix: str = ""


def diagnose(*, using: str | None = None) -> list[Finding]:
    """Examine the settings, the database, the queues and the workers; nothing is changed."""
    connection = connection_for(using)
    found = list(_checked(None))
    if connection.vendor != "postgresql":
        return found  # which says so
    try:
        found += _database(connection)
    except (Error, psycopg.Error) as error:
        text = f"The database does not answer: {str(error).strip()}"
        fix = "Start it, or correct DATABASES."
        found.append(Finding(level=Level.ERROR, what="database", text=text, fix=fix))
    return found


def _checked(alias: str | None) -> Iterator[Finding]:
    """Tell what `manage.py check` says: of the settings, or of a database."""
    if alias is None:
        messages = [message for check in checks.OF_SETTINGS for message in check()]
    else:
        messages = [each for check in checks.OF_DATABASE for each in check(databases=[alias])]
    for message in messages:
        if not message.is_silenced():
            level = Level.ERROR if message.level >= django_checks.ERROR else Level.WARNING
            fix = message.hint or ""
            yield Finding(level=level, what=str(message.id), text=str(message.msg), fix=fix)


def _database(connection: BaseDatabaseWrapper) -> Iterator[Finding]:
    before = time.time()
    server = doctoring.server(connection)
    after = time.time()
    yield _ok("database", f"PostgreSQL {server.version} answers.")
    yield from _checked(connection.alias)
    yield from _clocks(server.clock, before, after)
    yield from _sessions(server)
    if not is_migrated(connection.alias):
        yield _error("migrations", "The tables are not up to date.", "Run manage.py migrate.")
        return
    yield _ok("migrations", "The tables are up to date.")
    if names := doctoring.missing_triggers(connection, TRIGGERS):
        text = f"Triggers are missing or disabled: {', '.join(names)}."
        yield _error("triggers", text, "Restore the schema as the migrations make it.")
    for name in missing(connection.alias):
        text = f"Declared in code and not in the database: {name}."
        yield _error("declarations", text, "Run manage.py sync_messaging.")
    yield from _wake_up(connection)
    yield from _tables(connection, server)
    yield from _queues(connection)
    yield from _webhooks(connection)
    if number := doctoring.died(connection, HOUR):
        more = " or more" if number >= doctoring.LOOKED_AT else ""
        text = f"{number:,}{more} messages died within the last hour."
        yield _warning("dead letters", text, "Look at the dead letters, mend and redrive them.")
    if number := doctoring.overdue(connection):
        text = f"{number:,} of the oldest messages are past their retention for over an hour."
        yield _warning("retention", text, "Workers prune the log: start one, or read its log.")


def _clocks(clock: float, before: float, after: float) -> Iterator[Finding]:
    skew = max(before - clock, clock - after, 0.0)
    if skew > MOST_SKEW:
        text = f"The clocks of this machine and of the database differ by {skew:.1f} seconds."
        yield _warning("clock", text, "Synchronise both with NTP.")


def _sessions(server: doctoring.Server) -> Iterator[Finding]:
    if server.sessions > 0.8 * server.most_sessions:
        text = f"{server.sessions:,} of {server.most_sessions:,} connections are in use."
        yield _warning("connections", text, "Raise max_connections, or use a pooler.")


def _wake_up(connection: BaseDatabaseWrapper) -> Iterator[Finding]:
    try:
        hears = doctoring.hears(connection, HEARD_WITHIN)
        why = "Nothing that is notified is heard"
    except (Error, psycopg.Error, OSError) as error:
        hears, why = False, f"Nobody can listen: {str(error).strip()}"
    if hears:
        yield _ok("wake-up", "What is notified is heard.")
    else:
        text = f"{why}; workers poll."
        fix = "Set MESSAGING['LISTEN_URL'] to a direct connection to the same database."
        yield _warning("wake-up", text, fix)


def _tables(connection: BaseDatabaseWrapper, server: doctoring.Server) -> Iterator[Finding]:
    if not server.autovacuum:
        yield _error("vacuum", "autovacuum is off: tables only grow.", "Set autovacuum = on.")
    for table, rows in doctoring.dead_rows(connection, MOST_DEAD_ROWS):
        text = f"{table} has {rows:,} dead rows."
        yield _warning("vacuum", text, f"End long transactions; then VACUUM {table}.")
    oldest = doctoring.oldest_transaction(connection)
    if oldest is not None and oldest[3] > LONG_TRANSACTION:
        pid, application, state, age = oldest
        text = f"Process {pid} ({application or 'unnamed'}, {state}) is {age:,.0f} seconds in a "
        text += "transaction: no dead row of any table is removed meanwhile."
        yield _warning("transaction", text, f"End it: SELECT pg_terminate_backend({pid}).")


def _webhooks(connection: BaseDatabaseWrapper) -> Iterator[Finding]:
    for webhook in webhooks.described(connection):
        if webhook.is_left_alone:
            fix = f"Mend the receiver, then run manage.py webhooks enable {webhook.name}."
            yield _warning("webhooks", f"Webhook {webhook.name} {in_words(webhook)}.", fix)


def _queues(connection: BaseDatabaseWrapper) -> Iterator[Finding]:
    known = webhooks.described(connection)
    have_consumers = {*declarations.consumers, *(webhook.queue for webhook in known)}
    left_alone = {webhook.queue for webhook in known if webhook.is_left_alone}
    for queue in doctoring.queues(connection):
        if queue.paused_for is not None:
            if queue.paused_for > HOUR:
                text = f"Queue {queue.name} is paused for {queue.paused_for / HOUR:,.1f} hours."
                yield _warning("paused", text, f"Run manage.py queues resume {queue.name}.")
            continue
        if not queue.has_ready or queue.name in left_alone:
            continue
        if queue.workers == 0 and queue.name in have_consumers:
            text = f"Messages wait on queue {queue.name}, and no worker serves it."
            yield _error("workers", text, f"Run manage.py runworker {queue.name}.")
        elif queue.workers == 0 and not queue.holds_dead_letters:
            text = f"Messages wait on queue {queue.name}, which has no consumer and no worker."
            yield _warning(
                "consumers",
                text,
                "Declare a @consumer or add a webhook, unless receive() takes them.",
            )
        elif queue.oldest > HOUR:
            text = f"What is next on queue {queue.name} waits for {queue.oldest / HOUR:,.1f} hours."
            yield _warning("age", text, f"Start more workers: manage.py runworker {queue.name}.")


def _ok(what: str, text: str) -> Finding:
    return Finding(level=Level.OK, what=what, text=text)


def _warning(what: str, text: str, fix: str) -> Finding:
    return Finding(level=Level.WARNING, what=what, text=text, fix=fix)


def _error(what: str, text: str, fix: str) -> Finding:
    return Finding(level=Level.ERROR, what=what, text=text, fix=fix)
