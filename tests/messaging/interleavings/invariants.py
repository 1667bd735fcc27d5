"""Invariants: what must hold after every schedule, whatever its story is about.

They compare what the sessions were told (the journal) with the tables, and never ask the library.
"""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

from django.db import connection
from interleaving import Schedule
from journal import Journal, current

from messaging import LeaseLost

MAX_DELIVERIES = 2
FAIR = 1

# Where each message is, of each queue that should have it; a token stands for no message.
PLACES = """
    SELECT message_id, queue.name, place, attempt FROM (
        SELECT message_id, queue_id, 'ready' AS place, attempt
            FROM messaging_delivery WHERE lane_id IS NULL
        UNION ALL SELECT message_id, queue_id, 'ready', attempt FROM messaging_laneentry
        UNION ALL SELECT message_id, queue_id, 'leased', attempt FROM messaging_lease
        UNION ALL SELECT message_id, queue_id, 'scheduled', attempt FROM messaging_scheduled
            WHERE message_id <> 0
        UNION ALL SELECT message_id, origin_id, 'dead', attempts FROM messaging_deadletter
    ) AS waiting JOIN messaging_queue AS queue ON queue.id = queue_id
    UNION ALL SELECT message_id, queue, 'done', attempt FROM effect
"""
# Of each lane that somebody knows: its tokens by its own account and in truth, and what waits.
LANES = """
    WITH token AS (
        SELECT lane_id FROM messaging_delivery WHERE lane_id IS NOT NULL
        UNION ALL SELECT lane_id FROM messaging_scheduled WHERE lane_id IS NOT NULL
        UNION ALL SELECT lane_id FROM messaging_lease WHERE lane_id IS NOT NULL
    ),
    known AS (
        SELECT lane_id FROM token UNION SELECT lane_id FROM messaging_laneentry
        UNION SELECT id FROM messaging_lane
    )
    SELECT lane.kind, lane.tokens, lane.parked_at IS NOT NULL,
        (SELECT count(*) FROM token WHERE token.lane_id = known.lane_id),
        (SELECT count(*) FROM messaging_laneentry AS entry WHERE entry.lane_id = known.lane_id)
    FROM known LEFT JOIN messaging_lane AS lane ON lane.id = known.lane_id
"""
FAILED = """
    SELECT message_id, queue.name, attempt, outcome = 'retry', error
    FROM messaging_attempt JOIN messaging_queue AS queue ON queue.id = queue_id
    ORDER BY messaging_attempt.id
"""
DEAD = """
    SELECT dead.message_id, queue.name, dead.attempts, dead.reason, dead.error,
        message.id IS NULL OR message.body = dead.body
    FROM messaging_deadletter AS dead JOIN messaging_queue AS queue ON queue.id = dead.origin_id
    LEFT JOIN messaging_message AS message ON message.id = dead.message_id
"""
HELD = """
    SELECT message_id, queue.name, token
    FROM messaging_lease JOIN messaging_queue AS queue ON queue.id = queue_id
"""

Key = tuple[int, str]


def execute(sql: str) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


class Found:
    """What the tables say after a schedule, read once for all invariants."""

    def __init__(self) -> None:
        self.rows = execute(PLACES)
        self.places = {(message, queue): (place, n) for message, queue, place, n in self.rows}
        self.log = {message for (message,) in execute("SELECT id FROM messaging_message")}
        self.failed: defaultdict[Key, list[tuple[int, bool, str]]] = defaultdict(list)
        for message, queue, *failure in execute(FAILED):
            self.failed[message, queue].append((failure[0], failure[1], failure[2]))


def hold(schedule: Schedule | None = None) -> None:
    """Look at all invariants, of the schedule that ended just now."""
    journal, found = current.journal, Found()
    # Before what it is a case of, so that it says which.
    i8_each_subscriber_has_it_once(journal, found)
    i1_nothing_acknowledged_is_lost(journal, found)
    i2_nothing_undone_appears(journal, found)
    i3_one_effect_of_each_message(journal, found)
    i4_deliveries_are_counted_one_by_one(journal, found)
    i5_one_message_of_a_key_at_a_time(journal)
    i6_a_later_lease_fences_an_earlier_one(journal, schedule)
    i7_dead_once_after_all_attempts(found)
    i10_one_message_of_an_identity(journal, found)


def i1_nothing_acknowledged_is_lost(journal: Journal, found: Found) -> None:
    """Each message that somebody was told is stored is in exactly one place of each queue."""
    twice = [key for key, n in Counter(row[:2] for row in found.rows).items() if n > 1]
    assert not twice, f"I1: in several places: {twice} of {found.rows}"
    assert not execute("SELECT * FROM messaging_arrival"), "I1: an arrival has no place yet"
    missing = _expected(journal) - found.places.keys()
    assert len(missing) == journal.taken_away, f"I1: lost: {missing}, places: {found.rows}"


def i2_nothing_undone_appears(journal: Journal, found: Found) -> None:
    """What was rolled back never existed, and nothing exists that nobody sent."""
    sent = {each.message_id for each in journal.sent}
    ghosts = (found.log | {message for message, _ in found.places}) - sent
    assert not ghosts, f"I2: ghosts: {ghosts}"
    elsewhere = found.places.keys() - _expected(journal)
    assert not elsewhere, f"I2: where nobody sent it: {elsewhere}"


def i3_one_effect_of_each_message(journal: Journal, found: Found) -> None:
    """A handled message took effect once, under the last token that anybody had for it."""
    for message, queue, token in execute("SELECT message_id, queue, token FROM effect"):
        tokens = journal.tokens.get((message, queue))
        assert token is None or not tokens or token == tokens[-1], f"I3: {token} of {tokens}"
    effects = Counter(row[:2] for row in found.rows if row[2] == "done")
    assert set(effects.values()) <= {1}, f"I3: effects {effects}"


def i4_deliveries_are_counted_one_by_one(journal: Journal, found: Found) -> None:
    """Each delivery again is the next attempt of the same message, up to the last."""
    for key in found.failed.keys() | found.places.keys():
        failures = found.failed[key]
        following = 1
        for attempt, again, _ in failures:
            assert attempt == following, f"I4: {key} failed as {failures}"
            following = attempt + 1 if again else 1
        place, attempt = found.places.get(key, ("", following))
        if place == "dead":
            following = failures[-1][0]
        assert attempt == following, f"I4: {key} is {place} as attempt {attempt} after {failures}"
        assert attempt <= MAX_DELIVERIES, f"I4: {key} is {place} as attempt {attempt}"
    for key, calls in journal.calls().items():
        done = found.places.get(key, ("", 0))[0] == "done"
        assert calls <= done + len(found.failed[key]), f"I4: {key} was handled {calls} times"


def i5_one_message_of_a_key_at_a_time(journal: Journal) -> None:
    """No two handlers of a key run at once, and its lane has the one token that says so."""
    by_key: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for span in journal.spans:
        if span.key is not None:
            by_key[span.queue, span.key].append((span.began, span.ended))
    for key, spans in by_key.items():
        for (_, end), (begin, _) in pairwise(sorted(spans)):
            assert end < begin, f"I5: two of {key} ran at once: {spans}"
    for kind, tokens, is_parked, number, waiting in execute(LANES):
        assert tokens is not None, f"I5: {number} tokens and {waiting} entries without a lane"
        assert tokens == number, f"I5: a lane of {tokens} tokens has {number}"
        assert number or is_parked, f"I5: a lane with {waiting} entries has no token"
        assert kind == FAIR or number <= 1, f"I5: an ordering key has {number} tokens"


def i6_a_later_lease_fences_an_earlier_one(journal: Journal, schedule: Schedule | None) -> None:
    """Tokens of a message grow, and who was too late has left nothing."""
    for key, tokens in journal.tokens.items():
        assert all(a < b for a, b in pairwise(tokens)), f"I6: tokens of {key}: {tokens}"
    for message, queue, token in execute(HELD):
        assert token == journal.tokens[message, queue][-1], f"I6: {message} is held as {token}"
    if schedule is None:
        return
    results = schedule.results.items()
    late = {f"session-{name}" for name, what in results if isinstance(what, LeaseLost)}
    left = [span for span in journal.spans if span.session in late and span.committed]
    assert not left, f"I6: too late, and yet kept: {left}"


def i7_dead_once_after_all_attempts(found: Found) -> None:
    """A message died once, of its last attempt and not earlier, with its body and last error."""
    dead = execute(DEAD)
    assert len({row[:2] for row in dead}) == len(dead), f"I7: dead twice: {dead}"
    for message, queue, attempts, reason, error, is_whole in dead:
        last = found.failed[message, queue][-1]
        assert is_whole, f"I7: {message} has another body as a dead letter"
        assert (attempts, False, error) == last, f"I7: {message} died of {last}"
        if reason != "rejected":
            assert attempts == MAX_DELIVERIES, f"I7: {message} died after {attempts} attempts"


def i8_each_subscriber_has_it_once(journal: Journal, found: Found) -> None:
    """A publication reached the queues that were subscribed at its moment, and no other."""
    for sent in journal.sent:
        if sent.is_topic and not sent.duplicate:
            reached = {queue for message, queue in found.places if message == sent.message_id}
            assert reached == sent.subscribers, f"I8: {reached} of {set(sent.subscribers)}"


def i10_one_message_of_an_identity(journal: Journal, found: Found) -> None:
    """Of all that was sent with one identity, one message is stored, with one body."""
    by_identity: defaultdict[tuple[bool, str, str], list[Any]] = defaultdict(list)
    for sent in journal.sent:
        if sent.identity is not None:
            by_identity[sent.is_topic, sent.name, sent.identity].append(sent)
    for identity, group in by_identity.items():
        assert len({sent.message_id for sent in group}) == 1, f"I10: {identity} is {group}"
        assert len({sent.body for sent in group}) == 1, f"I10: {identity} is {group}"
        assert sum(not sent.duplicate for sent in group) == 1, f"I10: {identity} is {group}"


def _expected(journal: Journal) -> set[Key]:
    expected = set()
    for sent in journal.sent:
        queues = sent.subscribers if sent.is_topic else [sent.name]
        expected |= {(sent.message_id, queue) for queue in queues}
    return expected
