"""Identities: store nothing twice that has the same deduplication id, or the same sender's id."""

from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from ..encoding import digest_of
from ..exceptions import DeduplicationConflict
from .connection import run
from .outgoing import Outgoing, Published, Stored, Told
from .statements import SENDERS_WINDOW, Identity

Publish = Callable[[BaseDatabaseWrapper, Outgoing], Published]


def identity_of(outgoing: Outgoing) -> Identity | None:
    """Return what identifies these messages, if anything does."""
    if outgoing.message_id is not None:
        return Identity.SENDER
    return None if outgoing.deduplication_ids is None else Identity.WINDOW


def are_two(outgoing: Outgoing) -> bool:
    """Tell whether a message has both a sender's id and a deduplication id."""
    return outgoing.message_id is not None and outgoing.deduplication_ids is not None


def by_content(outgoing: Outgoing) -> Outgoing:
    """Return the messages, each identified by its body (SQS: ContentBasedDeduplication)."""
    return outgoing._replace(deduplication_ids=[digest_of(b).hex() for b in outgoing.bodies])


def keys_of(outgoing: Outgoing) -> tuple[list[str], list[bytes]]:
    """Return the key of each message, and the digest of what must not change under it."""
    if outgoing.message_id is not None:
        # The same id on its way to somewhere else is another message.
        destination = f"{'topic' if outgoing.is_topic else 'queue'}:{outgoing.name}"
        return [outgoing.message_id], [digest_of(outgoing.bodies[0], destination)]
    return list(outgoing.deduplication_ids or ()), [digest_of(body) for body in outgoing.bodies]


ORIGINALS = """
    SELECT key, message_id, digest FROM messaging_deduplication
    WHERE scope = %s AND key = ANY (%s::text[])
"""


def complete(
    connection: BaseDatabaseWrapper,
    outgoing: Outgoing,
    told: Told,
    placed: list[tuple[int, int | None, int]],
    publish: Publish,
) -> Published:
    """Fill in the ids of what was stored before; raise when it was something else."""
    missing = [position for position, message_id in enumerate(told.ids) if message_id is None]
    if not missing:
        return Stored(told.ids, placed)
    keys, digests = keys_of(outgoing)
    kind = "topic" if outgoing.is_topic else "queue"
    scope = "message:" if outgoing.message_id is not None else f"{kind}:{told.target}"
    rows = run(connection, ORIGINALS, (scope, [keys[position] for position in missing]))
    originals = {key: (message_id, bytes(digest)) for key, message_id, digest in rows}
    for position in missing:
        if keys[position] in originals:
            original, digest = originals[keys[position]]
            if digest != digests[position]:
                raise DeduplicationConflict(keys[position], original)
            told.ids[position] = original
    stored = Stored(told.ids, placed, frozenset(missing))
    return _with_pruned(connection, outgoing, stored, publish)


def _with_pruned(
    connection: BaseDatabaseWrapper, outgoing: Outgoing, stored: Stored, publish: Publish
) -> Published:
    """Store those whose originals expired and were pruned between the two statements."""
    pruned = [position for position, message_id in enumerate(stored.ids) if message_id is None]
    if not pruned:
        return stored
    ids = outgoing.deduplication_ids
    rest = publish(
        connection,
        outgoing._replace(
            bodies=[outgoing.bodies[position] for position in pruned],
            deduplication_ids=ids and [ids[position] for position in pruned],
        ),
    )
    if not isinstance(rest, Stored):
        return rest
    again = {pruned[position] for position in rest.duplicates}
    for position, message_id in zip(pruned, rest.ids, strict=True):
        stored.ids[position] = message_id
    duplicates = (stored.duplicates - set(pruned)) | again
    return Stored(stored.ids, stored.placed + rest.placed, duplicates)


_CLAIM = """
    INSERT INTO messaging_deduplication AS known (scope, key, message_id, digest, expires_at)
    SELECT 'message:', %(key)s, 0, %(digest)s,
        statement_timestamp() + ({window}) * interval '1 second'
    FROM {table} AS open WHERE name = %(name)s
    ON CONFLICT (scope, key) DO UPDATE
    SET message_id = 0, digest = excluded.digest, expires_at = excluded.expires_at
    WHERE known.expires_at <= statement_timestamp()
    RETURNING 1
"""
CLAIM: dict[bool, Any] = {
    False: _CLAIM.format(table="messaging_queue", window=SENDERS_WINDOW),
    True: _CLAIM.format(table="messaging_topic", window=SENDERS_WINDOW),
}
SETTLE = """
    UPDATE messaging_deduplication SET message_id = %s WHERE scope = 'message:' AND key = %s
"""
GIVE_UP = "DELETE FROM messaging_deduplication WHERE scope = 'message:' AND key = %s"


def publish_once(
    connection: BaseDatabaseWrapper, outgoing: Outgoing, publish: Publish
) -> Published:
    """Store a message that has both a sender's id and a deduplication id."""
    (key,), (digest,) = keys_of(outgoing)
    claim = {"key": key, "digest": digest, "name": outgoing.name}
    if run(connection, CLAIM[outgoing.is_topic], claim):
        stored = publish(connection, outgoing._replace(message_id=None))
        if isinstance(stored, Stored):
            run(connection, SETTLE, (stored.ids[0], key))
        else:  # renamed meanwhile
            run(connection, GIVE_UP, (key,))
        return stored
    rows = run(connection, ORIGINALS, ("message:", [key]))
    if not rows:
        return None  # no such name
    if bytes(rows[0][2]) != digest:
        raise DeduplicationConflict(key, rows[0][1])
    return Stored([rows[0][1]], [], frozenset((0,)))
