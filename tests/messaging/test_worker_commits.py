"""A worker's commit that is cut off: whether it happened or not, the effect is there once."""

import pytest
from cutting import Cut, another_way
from django.contrib.auth.models import Group
from django.db import connections
from effects import effects, failures, waiting

from messaging import send_many

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "far"])

WAYS_TO_CONSUME = [{}, {"transaction_size": 10}, {"batch": 10}, {"lease": 30}]


@pytest.fixture(autouse=True, scope="module")
def far(django_db_setup):
    """Give the same database a second alias, `far`, on a way that can be cut."""
    with another_way("far") as way:
        yield way


@pytest.mark.parametrize("cut", Cut)
@pytest.mark.parametrize("options", WAYS_TO_CONSUME, ids=str)
def test_a_commit_that_is_cut_off_is_neither_lost_nor_doubled_nor_counted(
    declare, runner, far, cut, options
):
    cuts = [cut]

    def handle(given):
        for message in given if isinstance(given, list) else [given]:
            Group.objects.using("far").create(name=message.body)
        if cuts:
            far.cut(cuts.pop(), "COMMIT")

    declare(handle, **options)
    send_many("invoices", ["a", "b", "c"])
    runner(using="far", drain=True).run()
    connections["far"].close()
    assert cuts == []
    assert sorted(effects()) == ["a", "b", "c"]
    assert (failures(), waiting()) == ([], {})
