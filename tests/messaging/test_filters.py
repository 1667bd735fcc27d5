"""A message goes to the subscriptions whose filters it matches, however it is published."""

import json
import os
import threading
from collections import Counter
from pathlib import Path

import pytest
from django.db import connections
from naive import takes

from messaging import consumer, control, publish, publish_many
from messaging.exceptions import InvalidDefinitions, InvalidFilter
from messaging.models import Arrival, Delivery, Queue, Subscription, Topic
from messaging.sync import synchronise

EVENTS = Path(__file__).parents[3] / "shared" / "data" / "github_events.jsonl"


def received():
    """Return how many messages each queue holds; those with a key take their place at commit."""
    ready = Delivery.objects.values_list("queue__name", flat=True)
    arrived = Arrival.objects.values_list("queue__name", flat=True)
    return Counter([*ready, *arrived])


@pytest.fixture
def orders(bare, topic, subscribe):
    """Return the queues of Britain by headers, of the dear by body, of a network, and of all."""
    topic("orders.placed")
    subscribe("orders.*", "britain", filter={"country": ["GB"]})
    subscribe("#", "dear", filter={"total": [{"numeric": [">", 100]}]}, filter_scope="body")
    subscribe("orders.#", "inside", filter={"ip": [{"cidr": "10.0.0.0/8"}]}, filter_scope="body")
    subscribe("orders.placed", "all")


@pytest.mark.django_db
@pytest.mark.usefixtures("orders")
class TestPublishing:
    @pytest.mark.parametrize(
        "options",
        [{}, {"ordering_key": "k"}, {"delay": 0}, {"deduplication_id": "d"}, {"priority": 5}],
    )
    def test_a_message_goes_to_the_subscriptions_that_it_matches(self, options):
        body = {"total": 150, "ip": "10.1.2.3"}
        publish("orders.placed", body, headers={"country": "GB"}, **options)
        assert received() == {"britain": 1, "dear": 1, "inside": 1, "all": 1}
        more = {"deduplication_id": "e"} if "deduplication_id" in options else {}
        publish("orders.placed", {"total": 99, "ip": "11.1.2.3"}, **options | more)
        assert received() == {"britain": 1, "dear": 1, "inside": 1, "all": 2}

    @pytest.mark.parametrize("number", [3, 600])
    def test_each_body_of_a_batch_is_looked_at_by_itself(self, number):
        bodies = [{"total": 100 + n, "ip": f"{10 + n % 2}.0.0.1"} for n in range(number)]
        publish_many("orders.placed", bodies)
        inside = (number + 1) // 2
        assert received() == {"dear": number - 1, "inside": inside, "all": number}

    def test_a_filter_that_changes_counts_from_the_next_message_on(self):
        row = Subscription.objects.filter(queue__name="britain")
        row.update(filter={"country": ["IE"]})
        publish("orders.placed", "x", headers={"country": "GB"})
        assert received() == {"all": 1}
        row.update(filter=None)
        publish("orders.placed", "x")
        assert received() == {"all": 2, "britain": 1}

    def test_a_topic_that_comes_later_is_filtered_too(self, topic):
        topic("orders.paid")
        publish("orders.paid", {"total": 1}, headers={"country": "FR"})
        assert received() == {}
        publish("orders.paid", {"total": 101})
        assert received() == {"dear": 1}

    def test_bulk_create_compiles_filters_as_well(self):
        other = Queue.objects.create(name="other")
        Subscription.objects.bulk_create(
            [Subscription(pattern="orders.placed", queue=other, filter={"a": [1]})]
        )
        publish("orders.placed", "x", headers={"a": 2})
        publish("orders.placed", "x", headers={"a": 1})
        assert received() == {"all": 2, "other": 1}


@pytest.mark.django_db
@pytest.mark.usefixtures("orders")
def test_a_dry_run_says_which_filters_take_a_message_and_which_key_is_in_the_way():
    found = control.receivers("orders.placed", {"total": 5, "ip": "10.0.0.1"}, {"country": "FR"})
    assert {each.queue: each.why for each in found} == {
        "all": "",
        "inside": "",
        "britain": 'The filter does not take its headers: $.country is not one of ["GB"].',
        "dear": 'The filter does not take its body: $.total is not one of [{"numeric":[">",100]}].',
    }
    assert received() == {}


@pytest.mark.django_db
@pytest.mark.usefixtures("orders")
def test_a_message_that_a_filter_did_not_take_is_not_completed_in_its_queue():
    publish("orders.placed", {"n": 1}, headers={"country": "FR"})
    publish("orders.placed", {"n": 2}, headers={"country": "GB"})
    Delivery.objects.all().delete()
    found = control.search("britain", control.Filter(state="completed"))
    assert [each.body for each in found.messages] == [{"n": 2}]


@pytest.mark.django_db
@pytest.mark.usefixtures("bare", "topic")
def test_a_message_that_no_filter_took_is_explained_as_such(topic, subscribe):
    topic("orders.placed")
    subscribe("orders.placed", "britain", filter={"country": ["GB"]})
    (why,) = control.explain(int(publish("orders.placed", "x", headers={"country": "FR"})))
    assert why.cause == control.Cause.NOT_ROUTED


@pytest.mark.django_db
@pytest.mark.usefixtures("bare")
class TestDeclaring:
    def test_a_filter_is_declared_and_never_overwritten(self, declared):
        consumer("bills", topic="orders.placed", filter={"total": [1]}, filter_scope="body")(print)
        synchronise()
        row = Subscription.objects.get()
        assert (row.filter, row.filter_scope) == ({"total": [1]}, "body")
        Subscription.objects.update(filter={"total": [2]})
        synchronise()
        assert Subscription.objects.get().filter == {"total": [2]}

    def test_a_wrong_filter_is_refused_at_declaration(self, declared):
        with pytest.raises(InvalidFilter, match=r"\$\.total"):
            consumer("bills", topic="orders.placed", filter={"total": 1})
        with pytest.raises(ValueError, match="a filter needs a topic"):
            consumer("bills", filter={"total": [1]})

    def test_definitions_carry_filters_and_refuse_wrong_ones(self, topic, subscribe):
        subscribe("orders.placed", "bills", filter={"total": [1]}, filter_scope="body")
        document = control.export_definitions()
        Subscription.objects.all().delete()
        control.import_definitions(document)
        row = Subscription.objects.get()
        assert (row.filter, row.filter_scope) == ({"total": [1]}, "body")
        wrong = json.loads(document)
        wrong["subscriptions"][0]["filter"] = {"total": 1}
        with pytest.raises(InvalidDefinitions, match=r"subscriptions\[0\], filter: .*\$\.total"):
            control.import_definitions(json.dumps(wrong))


def body(**policy):
    return policy, "body"


def headers(**policy):
    return policy, "headers"


# Every operator, on headers and on the body.
FILTERS = [
    headers(action=["opened", "closed"]),
    headers(action=[{"prefix": "un"}]),
    headers(action=[{"suffix": "ed"}]),
    headers(action=[{"wildcard": "*e*d*"}]),
    headers(action=[{"anything-but": ["created", "deleted"]}]),
    headers(action=[{"exists": False}]),
    headers(line=[{"numeric": [">=", 50, "<", 150]}], private=[True]),
    headers(ip=[{"cidr": "10.0.0.0/25"}]),
    headers(ip=[{"cidr": "2001:db8::/32"}]),
    headers(action=[{"equals-ignore-case": "OPENED"}, {"anything-but": {"suffix": "d"}}]),
    body(action=[{"anything-but": {"prefix": ["cre", "del"]}}]),
    body(sender={"login": [{"equals-ignore-case": "CODERTOCAT"}], "site_admin": [False]}),
    body(repository={"owner": {"login": [{"anything-but": {"wildcard": "octo*"}}]}}),
    body(repository={"id": [{"numeric": [">", 100_000_000]}], "language": [None, "Ruby"]}),
    body(installation={"id": [{"exists": True}]}, sender={"id": [{"exists": True}]}),
    body(installation={"id": [{"exists": False}]}),
    body(**{"$or": [{"action": ["created"]}, {"sender": {"login": [{"prefix": "oct"}]}}]}),
    body(commits={"author": {"name": [{"suffix": "t"}]}, "distinct": [True]}),
    body(issue={"labels": {"name": ["bug"]}, "comments": [0]}),
    body(repository={"private": [True, False], "name": [{"wildcard": "Hello-*"}]}),
]


@pytest.mark.django_db
@pytest.mark.skipif(
    not EVENTS.exists() and "CI" not in os.environ, reason="the events are not beside the checkout"
)
@pytest.mark.usefixtures("bare")
def test_real_events_go_where_a_naive_reading_of_twenty_filters_sends_them(subscribe):
    events = [json.loads(line) for line in EVENTS.read_text().splitlines()]
    assert len(events) == 329
    Topic.objects.bulk_create(Topic(name=name) for name in {each["event"] for each in events})
    for number, (policy, scope) in enumerate(FILTERS):
        subscribe("#", f"queue-{number:02}", filter=policy, filter_scope=scope)
    expected: Counter[str] = Counter()
    for line, each in enumerate(events):
        found = {
            "line": line,
            "private": each["payload"].get("repository", {}).get("private"),
            "ip": f"10.0.0.{line % 256}" if line % 2 else f"2001:db8::{line:x}",
        }
        if "action" in each["payload"]:
            found["action"] = each["payload"]["action"]
        message = publish(each["event"], each["payload"], headers=found)
        documents = {"headers": found, "body": each["payload"]}
        wanted = {
            f"queue-{number:02}"
            for number, (policy, scope) in enumerate(FILTERS)
            if takes(policy, documents[scope])
        }
        expected.update(wanted)
        got = Delivery.objects.filter(message_id=int(message))
        assert set(got.values_list("queue__name", flat=True)) == wanted, each["event"]
    assert received() == expected
    assert len(expected) == len(FILTERS)


@pytest.mark.django_db
@pytest.mark.usefixtures("bare", "topic")
def test_a_thousand_filters_are_tested_by_the_statement_that_publishes(
    topic, django_assert_num_queries
):
    topic("orders.placed")
    queues = Queue.objects.bulk_create(Queue(name=f"queue-{n}") for n in range(1000))
    Subscription.objects.bulk_create(
        Subscription(
            pattern="orders.placed", queue=each, filter={"n": [n % 10]}, filter_scope="body"
        )
        for n, each in enumerate(queues)
    )
    with django_assert_num_queries(1):
        publish("orders.placed", {"n": 3})
    assert Delivery.objects.count() == 100


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("bare")
def test_no_message_is_missed_or_doubled_while_filters_change(topic, subscribe, elsewhere, until):
    topic("orders.placed")
    subscribe("orders.placed", "steady")
    subscribe("orders.placed", "changing", filter={"n": [{"numeric": [">=", 0]}]})
    subscribe("orders.placed", "wavering")
    ended = threading.Event()

    def work(worker):
        count = 0
        while not ended.is_set():
            publish("orders.placed", {"worker": worker}, headers={"n": worker})
            publish_many("orders.placed", [{"worker": worker}] * 2, headers={"n": worker})
            count += 3
        return count

    workers = [elsewhere(work, number) for number in range(3)]
    until(lambda: Delivery.objects.count() > 30)
    for number in range(40):
        # Each of these takes every message: it must not matter which is in force.
        filters = [{"n": [{"numeric": [">=", 0]}]}, {"n": [0, 1, 2]}, None]
        Subscription.objects.filter(queue__name="changing").update(filter=filters[number % 3])
        Subscription.objects.filter(queue__name="wavering").update(is_active=bool(number % 2))
    ended.set()
    total = sum(each.result(30) for each in workers)
    connections.close_all()
    found = received()
    assert (found["steady"], found["changing"]) == (total, total)
    per_message = Counter(Delivery.objects.values_list("queue_id", "message_id"))
    assert set(per_message.values()) == {1}
