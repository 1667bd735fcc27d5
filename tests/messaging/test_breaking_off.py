"""Whatever breaks off between any two of its statements leaves a message in one place, alive."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from django.db import OperationalError, connection
from effects import effects, let_leases_end, make_due, take_effect

from messaging import (
    acknowledge_many,
    consumer,
    control,
    leasing,
    maintenance,
    receive,
    reject_many,
    release_many,
    send,
)
from messaging.models import Arrival, DeadLetter, Delivery, Lane, LaneEntry, Lease, Scheduled
from messaging.testing import drain

pytestmark = pytest.mark.django_db(transaction=True)

MOST_STATEMENTS = 40
PLACES = (Arrival, Delivery, LaneEntry, Scheduled, Lease, DeadLetter)


class Case(NamedTuple):
    """An operation on a message in the state that it needs."""

    name: str
    state: str
    act: Callable[[Any], Any]
    options: dict[str, Any] = {}


CASES = [
    Case("receive", "ready", lambda message: receive("invoices")),
    Case("acknowledge", "held", lambda message: message.acknowledge()),
    Case("release", "held", lambda message: message.release()),
    Case("release for later", "held", lambda message: message.release(after=60)),
    Case("reject", "held", lambda message: message.reject("no")),
    Case("acknowledge many", "held", lambda message: acknowledge_many([message])),
    Case("release many", "held", lambda message: release_many([message], after=60)),
    Case("reject many", "held", lambda message: reject_many([message], "no")),
    Case("count a death", "held", lambda message: leasing.count_deaths([leasing.holder()], "-9")),
    Case("give back all", "held", lambda message: leasing.release_all([leasing.holder()])),
    Case("release a lease", "held", lambda message: control.release_leases(ids_of(Lease))),
    Case("sweep", "lapsed", lambda message: leasing.sweep_expired()),
    Case("make due", "scheduled", lambda message: (make_due(), maintenance.promote_due())),
    Case("retry now", "scheduled", lambda message: control.retry_now(ids_of(Scheduled))),
    Case("redrive", "dead", lambda message: control.redrive_all()),
    Case("redrive elsewhere", "dead", lambda message: control.redrive_all(to="others")),
    Case("handle", "ready", lambda message: drain("invoices")),
    Case("handle under a lease", "ready", lambda message: drain("invoices"), {"lease": 30}),
    Case("handle in a batch", "ready", lambda message: drain("invoices"), {"batch": 5}),
    Case("fail", "ready", lambda message: drain("invoices"), {"backoff_base": 60}),
    Case("fail for good", "ready", lambda message: drain("invoices"), {"max_deliveries": 1}),
    Case(
        "fail under a lease",
        "ready",
        lambda message: drain("invoices"),
        {"lease": 30, "max_deliveries": 1},
    ),
]


def ids_of(model: Any) -> list[int]:
    return list(model.objects.values_list("pk", flat=True))


def places_of(message_id: int) -> int:
    """Return in how many places a message is, wherever it may be."""
    return sum(place.objects.filter(message_id=message_id).count() for place in PLACES)


class Cut:
    """Lets so many statements pass and then none, or all but one."""

    def __init__(self, number: int, *, once: bool) -> None:
        self._left = number
        self._once = once
        self.happened = False

    def __call__(self, run: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if self._left or (self._once and self.happened):
            self._left = max(0, self._left - 1)
            return run(sql, params, many, context)
        self.happened = True
        raise OperationalError("cut")


def bring_into(state: str) -> Any:
    """Have the one message that is ready be in a state; return it as it was received."""
    if state == "ready":
        return None
    (received,) = receive("invoices")
    match state:
        case "lapsed":
            let_leases_end()
        case "scheduled":
            received.release(after=60)
        case "dead":
            received.reject("no")
    return received


def settle_everything() -> None:
    """Do what workers and operators do, until nothing waits anywhere."""
    for _ in range(5):
        let_leases_end()
        leasing.sweep_expired()
        make_due()
        control.redrive_all()
        drain()
        if not any(place.objects.exists() for place in PLACES):
            return


@pytest.mark.parametrize("key", [None, "ordering_key"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_operation_that_breaks_off_leaves_its_message_in_one_place_and_alive(declare, case, key):
    failing = [False]

    def handle(given):
        for message in given if isinstance(given, list) else [given]:
            take_effect(f"{message.id} {len(effects())}")
        if failing[0]:
            raise ValueError("no")

    consumer("others")(handle)
    declare(handle, **{"backoff_base": 0, **case.options})
    for number in range(MOST_STATEMENTS):
        before = len(effects())
        sent = send("invoices", 1, **({} if key is None else {key: "k"}))
        received = bring_into(case.state)
        failing[0] = case.name.startswith("fail")
        # A worker that holds a message asks again for as long as the server is away.
        cut = Cut(number, once="lease" in case.options)
        with suppress(OperationalError), connection.execute_wrapper(cut):
            case.act(received)
        failing[0] = False
        is_acknowledged = case.name.startswith("acknowledge") and not cut.happened
        told = f"after {number} statements"
        assert places_of(sent) + len(effects()) - before + is_acknowledged == 1, told
        settle_everything()
        assert len(effects()) - before + is_acknowledged == 1, told
        assert not any(place.objects.exists() for place in (*PLACES, Lane)), told
        if not cut.happened:
            assert number > 0
            return
    pytest.fail(f"it takes more than {MOST_STATEMENTS} statements")
