"""Claims walk their index however much waits, and write no more than they must."""

import itertools

import pytest
from django.db import connection

from messaging import consumer, send, send_many
from messaging.models import Delivery, Queue, Scheduled
from messaging.store import deliveries
from messaging.testing import drain

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]


def execute(sql, params=()):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


FILL = """
    WITH logged AS (
        INSERT INTO messaging_message (queue_id, headers, body)
        SELECT %s, '{}', '{}' FROM generate_series(1, 20000)
        RETURNING id
    )
    INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt)
    SELECT %s + id %% 2, id %% 3, id, 1 FROM logged
"""
FILL_SCHEDULED = """
    INSERT INTO messaging_scheduled (queue_id, priority, message_id, attempt, due_at)
    SELECT %s, 0, n, 1, now() + (n - 10000) * interval '1 second'
    FROM generate_series(1, 20000) AS n
"""
KEY = {"queue_id": "$1", "priority": "$2"}
# Each statement, its parameters, and the columns by which it is to enter an index.
PLANS = {
    "claim": (
        deliveries.CLAIM,
        {**KEY, "after": "$3", "limit": "$4"},
        "(bigint, smallint, bigint, bigint)",
        "({queue}, 1, 500, 100)",
        ["queue_id", "priority", "id"],
    ),
    "priorities": (
        deliveries.PRIORITIES,
        {"queue_id": "$1"},
        "(bigint)",
        "({queue})",
        ["queue_id"],
    ),
    "promote": (deliveries.PROMOTE, {"limit": "$1"}, "(bigint)", "(1000)", ["due_at"]),
    "next due": (deliveries.NEXT_DUE, {}, "", "", []),
    "take lost": (
        deliveries.TAKE_LOST,
        {"queue_id": "$1", "priorities": "$2", "id": "$3"},
        "(bigint, smallint[], bigint)",
        "({queue}, '{{1}}', 500)",
        ["queue_id", "id"],
    ),
}


class TestPlans:
    @pytest.fixture
    def full(self, queue):
        """Return the id of a queue in which ten thousand of twenty thousand deliveries wait."""
        waiting = queue()
        execute(FILL, [waiting.pk, waiting.pk])
        execute(FILL_SCHEDULED, [waiting.pk])
        return waiting.pk

    @pytest.mark.parametrize("analysed", [False, True], ids=["unanalysed", "analysed"])
    def test_no_statement_of_the_hot_path_scans_a_table(self, analysed, full):
        if analysed:
            execute("ANALYZE messaging_message, messaging_delivery, messaging_scheduled")
        for name, mode in itertools.product(PLANS, ("force_generic_plan", "force_custom_plan")):
            *statement, columns = PLANS[name]
            plan = self.plan(*statement, mode=mode, queue=full)
            assert "Index" in plan, (name, mode, plan)
            for table in ("message", "delivery", "scheduled"):
                assert f"Seq Scan on messaging_{table}" not in plan, (name, mode, plan)
            entered = [line for line in plan.splitlines() if "Index Cond" in line]
            assert not columns or any(
                all(f"({column} " in line for column in columns) for line in entered
            ), (name, mode, plan)

    def plan(self, sql, names, types, values, *, mode, queue):
        """Return how the server runs a prepared statement."""
        execute(f"SET LOCAL plan_cache_mode = {mode}")
        execute(f"PREPARE looked_at{types} AS {sql % names}")
        try:
            rows = execute(f"EXPLAIN EXECUTE looked_at{values.format(queue=queue)}")
        finally:
            execute("DEALLOCATE looked_at")
        return "\n".join(line for (line,) in rows)

    def test_a_claim_reads_as_many_rows_as_it_takes(self, full):
        execute("ANALYZE messaging_delivery")
        before = self.entries_read()
        assert len(self.claim(full, limit=10)) == 10
        # The index is entered once to choose, and the rows are deleted by their place.
        assert self.entries_read() - before <= 12

    def entries_read(self):
        sql = "SELECT pg_stat_get_xact_tuples_fetched('messaging_delivery'::regclass)"
        return execute(sql)[0][0]

    def claim(self, queue_id, limit):
        return deliveries.claim(connection, queue_id=queue_id, priority=0, after=0, limit=limit)


class TestClaiming:
    def test_what_is_claimed_lies_behind_the_position_and_in_order(self, queue):
        waiting = queue()
        send_many("invoices", range(5))
        ids = list(Delivery.objects.order_by("id").values_list("id", flat=True))
        rows = deliveries.claim(connection, queue_id=waiting.pk, priority=0, after=ids[1], limit=2)
        assert [row.id for row in rows] == ids[2:4]
        assert [row.body for row in rows] == ["2", "3"]
        assert set(Delivery.objects.values_list("id", flat=True)) == {ids[0], ids[1], ids[4]}

    def test_a_claim_takes_no_more_than_asked_however_it_is_planned(self, queue):
        waiting = queue()
        send_many("invoices", range(50))
        # What is left is a nested loop, which runs a subquery again for each row.
        for way in ("hashjoin", "mergejoin", "hashagg", "sort", "material"):
            execute(f"SET LOCAL enable_{way} = off")
        rows = deliveries.claim(connection, queue_id=waiting.pk, priority=0, after=0, limit=10)
        assert len(rows) == 10
        assert Delivery.objects.count() == 40

    def test_other_queues_and_priorities_are_left_alone(self, queue):
        waiting = queue()
        queue("other")
        send("invoices", "mine")
        send("invoices", "urgent", priority=1)
        send("other", "theirs")
        rows = deliveries.claim(connection, queue_id=waiting.pk, priority=0, after=0, limit=9)
        assert [row.body for row in rows] == ['"mine"']
        assert Delivery.objects.count() == 2

    def test_the_priorities_that_wait_are_found_highest_first(self, queue):
        waiting = queue()
        assert deliveries.priorities(connection, waiting.pk) == []
        for priority in (3, -100, 3, 100, 0):
            send("invoices", 1, priority=priority)
        assert deliveries.priorities(connection, waiting.pk) == [100, 3, 0, -100]
        assert deliveries.priorities(connection, waiting.pk + 1) == []


class TestFootprint:
    def test_handling_a_message_deletes_one_row_and_updates_none(self, declared, queue):
        queue()
        send_many("invoices", range(10))
        consumer("invoices")(lambda message: None)
        before = self.written()
        assert drain("invoices") == 10
        changed = self.since(before)
        assert changed["messaging_delivery"] == (0, 0, 10)
        assert "messaging_message" not in changed

    def test_a_retry_moves_rows_and_updates_none(self, declared, queue):
        queue(backoff="fixed", backoff_base=3600)

        @consumer("invoices")
        def fail(message):
            raise LookupError

        send("invoices", 1)
        before = self.written()
        drain("invoices")
        assert self.since(before) == {
            "messaging_delivery": (0, 0, 1),
            "messaging_scheduled": (1, 0, 0),
            "messaging_attempt": (1, 0, 0),
        }
        assert (Delivery.objects.count(), Scheduled.objects.count()) == (0, 1)

    def written(self):
        rows = execute(
            "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables "
            "WHERE starts_with(relname, 'messaging_') "
            "AND relname NOT IN ('messaging_queue', 'messaging_topic', 'messaging_subscription')"
        )
        return {table: counts for table, *counts in rows}

    def since(self, before):
        return {
            table: tuple(now - then for now, then in zip(counts, before[table], strict=True))
            for table, counts in self.written().items()
            if counts != before[table]
        }


def test_what_is_put_back_is_as_it_was(queue):
    waiting = queue()
    send("invoices", 1, priority=5)
    before = list(Delivery.objects.values())
    (row,) = deliveries.claim(connection, queue_id=waiting.pk, priority=5, after=0, limit=1)
    assert not Delivery.objects.exists()
    deliveries.put_back(connection, [deliveries.Delivered(*row[:10])])
    assert list(Delivery.objects.values()) == before
    assert Queue.objects.get() == waiting
