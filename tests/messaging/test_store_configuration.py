"""Workers read a queue's row as the policy that they follow."""

import pytest
from django.db import connection
from django.utils import timezone

from messaging.policies import QueuePolicy
from messaging.store.configuration import policies

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]


def test_a_row_is_read_with_all_its_policies(queue):
    row = queue(
        max_deliveries=3,
        backoff="list",
        backoff_base=1.5,
        backoff_cap=60,
        backoff_delays=[1, 2.5],
        jitter="none",
        paused_at=timezone.now(),
    )
    assert policies(connection, names=["invoices"]) == [
        QueuePolicy(
            id=row.pk,
            name="invoices",
            paused=True,
            max_deliveries=3,
            backoff="list",
            backoff_base=1.5,
            backoff_cap=60,
            backoff_delays=(1, 2.5),
            jitter="none",
        )
    ]


def test_the_defaults_of_a_row_are_those_of_a_policy(queue):
    row = queue()
    assert policies(connection, ids=[row.pk]) == [QueuePolicy(id=row.pk, name="invoices")]


def test_queues_are_found_by_name_or_number_and_unknown_ones_are_left_out(queue):
    rows = [queue(name) for name in ("a", "b", "c")]
    found = policies(connection, names=["a", "nowhere"], ids=[rows[1].pk, -1])
    assert sorted(policy.name for policy in found) == ["a", "b"]
    assert policies(connection) == []
