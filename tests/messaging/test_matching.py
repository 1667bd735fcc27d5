"""A filter takes the messages that it says, and is refused with the place of what is wrong."""

import json

import pytest
from django.db import IntegrityError, connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import takes

from messaging import InvalidFilter
from messaging.matching import check_filter, parts
from messaging.models import Subscription

pytestmark = pytest.mark.django_db

MATCHES = """
    SELECT messaging_matches(%s::jsonb,
        messaging_compile_filter(%s::jsonb, 'body'), messaging_filter_networks(%s::jsonb))
"""


def stored_takes(policy, document):
    """Ask the database."""
    text = json.dumps(policy)
    with connection.cursor() as cursor:
        cursor.execute(MATCHES, [json.dumps(document), text, text])
        return cursor.fetchone()[0]


# Of the developer guide of Amazon SNS ("string value matching", "numeric value matching", "key
# matching", "AND/OR logic", "subscription filter policies") and the README of Event Ruler, which
# evaluates the policies: the policy, what it takes, what it does not take.
INTERESTS = "customer_interests"
EVENT = {
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "time": "2017-10-02T16:24:49Z",
    "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-000000aaaaaa00000"],
    "detail": {
        "c-count": 5,
        "d-count": 3,
        "x-limit": 301.8,
        "source-ip": "10.0.0.33",
        "instance-id": "i-000000aaaaaa00000",
        "state": "running",
    },
}
ORDER = {
    INTERESTS: ["soccer", "rugby", "hockey"],
    "store": "example_corp",
    "event": "order_placed",
    "price_usd": 210.75,
}
EXAMPLES = [
    ({INTERESTS: ["rugby", "tennis"]}, "rugby", "baseball"),
    ({INTERESTS: ["rugby", "tennis"]}, ["rugby", "tennis"], ["baseball"]),
    ({INTERESTS: [{"anything-but": ["rugby", "tennis"]}]}, "baseball", "rugby"),
    ({INTERESTS: [{"anything-but": ["rugby", "tennis"]}]}, ["rugby", "baseball"], ["rugby"]),
    ({INTERESTS: [{"prefix": "bas"}]}, "baseball", "rugby"),
    ({INTERESTS: [{"suffix": "ball"}]}, "basketball", "rugby"),
    ({INTERESTS: [{"equals-ignore-case": "tennis"}]}, "TeNnis", "table tennis"),
    ({INTERESTS: [{"wildcard": "*ball"}]}, "football", "ballet"),
    ({INTERESTS: [{"anything-but": {"wildcard": "*ball"}}]}, "rugby", "football"),
    ({"event": [{"anything-but": {"prefix": "order-"}}]}, "data-entry", "order-return"),
    ({"event": [{"anything-but": {"suffix": "-ed"}}]}, "order-ing", "order-ed"),
    ({"event": [{"anything-but": {"equals-ignore-case": ["a", "b"]}}]}, "c", "B"),
    ({"price_usd": [{"numeric": ["=", 301.5]}]}, 3.015e2, "301.5"),
    ({"price": [{"anything-but": [100, 500]}]}, 100.1, 100),
    ({"price": [{"anything-but": [100, 500]}]}, [100, 50], [100]),
    ({"price_usd": [{"numeric": ["<", 0]}]}, -0.01, 0),
    ({"price_usd": [{"numeric": [">", 0, "<=", 150]}]}, 150, 150.01),
    ({"source_ip": [{"cidr": "10.0.0.0/24"}]}, "10.0.0.255", "10.1.1.0"),
    ({"source_ip": [{"cidr": "2001:db8::/32"}]}, "2001:DB8:0:1::5", "2001:db9::1"),
    ({"store": [{"exists": True}]}, "fans", None),
    ({"source": [{"wildcard": "Simple*Service"}]}, "SimpleQueueService", "SimpleQueue"),
    ({"LastName": [""]}, "", "x"),
    ({"UserID": [None]}, None, "x"),
]
WHOLE = [
    (
        {
            "store": ["example_corp"],
            "event": [{"anything-but": "order_cancelled"}],
            INTERESTS: ["rugby", "football", "baseball"],
            "price_usd": [{"numeric": [">=", 100]}],
        },
        ORDER,
        True,
    ),
    (
        {
            "store": ["example_corp"],
            "event": ["order_cancelled"],
            "encrypted": [False],
            INTERESTS: ["basketball", "baseball"],
        },
        ORDER,
        False,
    ),
    ({"store": [{"exists": False}]}, {INTERESTS: ["baseball"]}, True),
    ({"store": [{"exists": False}]}, ORDER, False),
    ({INTERESTS: ["rugby"], "price_usd": [{"numeric": [">", 100]}]}, ORDER, True),
    ({INTERESTS: ["rugby"], "price_usd": [{"numeric": [">", 300]}]}, ORDER, False),
    (
        {
            "detail-type": ["EC2 Instance State-change Notification"],
            "resources": EVENT["resources"],
            "detail": {"state": ["initializing", "running"]},
        },
        EVENT,
        True,
    ),
    (
        {
            "time": [{"prefix": "2017-10-02"}],
            "detail": {
                "state": [{"anything-but": "initializing"}],
                "c-count": [{"numeric": [">", 0, "<=", 5]}],
                "d-count": [{"numeric": ["<", 10]}],
                "x-limit": [{"anything-but": [100, 200, 300]}],
                "source-ip": [{"cidr": "10.0.0.0/8"}],
            },
        },
        EVENT,
        True,
    ),
    ({"detail": {"c-count": [{"exists": False}]}}, {"detail": {"state": "running"}}, True),
    ({"detail": {"c-count": [{"exists": False}]}}, {"detail": {"c-count": {"c1": 100}}}, True),
    ({"detail": {"c-count": [{"exists": False}]}}, EVENT, False),
    ({"detail": {"c-count": [{"exists": False}]}}, {}, True),
    (
        {
            "source": ["aws.cloudwatch"],
            "$or": [{"metricName": ["CPUUtilization"]}, {"namespace": ["AWS/EC2", "AWS/ES"]}],
        },
        {"source": "aws.cloudwatch", "namespace": "AWS/ES"},
        True,
    ),
    (
        {
            "source": ["aws.cloudwatch"],
            "$or": [{"metricName": ["CPUUtilization"]}, {"namespace": ["AWS/EC2", "AWS/ES"]}],
        },
        {"source": "aws.cloudwatch", "namespace": "AWS/S3"},
        False,
    ),
    (
        {
            "source": ["aws.cloudwatch"],
            "$or": [
                {"metricName": ["CPUUtilization", "ReadLatency"]},
                {
                    "metricType": ["MetricType"],
                    "namespace": ["AWS/EC2", "AWS/ES"],
                    "$or": [{"metricId": [1234]}, {"spaceId": [1000]}],
                },
                {"scope": ["Service"]},
            ],
        },
        {
            "source": "aws.cloudwatch",
            "metricType": "MetricType",
            "namespace": "AWS/EC2",
            "spaceId": 1000,
        },
        True,
    ),
    # One element has to fulfil what is said of it, not several together (Ruler: array consistency).
    (
        {"lines": {"sku": ["A"], "count": [1]}},
        {"lines": [{"sku": "A", "count": 2}, {"sku": "B", "count": 1}]},
        False,
    ),
    ({"lines": {"sku": ["A"], "count": [1]}}, {"lines": [{"sku": "A", "count": 1}]}, True),
]


class TestTheExamplesOfAWS:
    @pytest.mark.parametrize(("policy", "taken", "refused"), EXAMPLES)
    def test_one_key(self, policy, taken, refused):
        check_filter(policy)
        (key,) = policy
        assert stored_takes(policy, {key: taken})
        assert not stored_takes(policy, {key: refused})
        assert (takes(policy, {key: taken}), takes(policy, {key: refused})) == (True, False)

    @pytest.mark.parametrize(("policy", "document", "expected"), WHOLE)
    def test_a_whole_policy(self, policy, document, expected):
        check_filter(policy, "body")
        assert stored_takes(policy, document) is expected
        assert takes(policy, document) is expected


class TestValues:
    @pytest.mark.parametrize("body", [[{"a": "x"}], "x", 5, None, True])
    def test_a_body_that_is_no_object_matches_no_filter(self, body):
        assert not stored_takes({"a": ["x", {"exists": False}]}, body)

    def test_numbers_compare_exactly(self):
        policy = {"id": [9007199254740993, 0.1]}
        assert stored_takes(policy, {"id": 9007199254740993})
        assert not stored_takes(policy, {"id": 9007199254740992})
        assert stored_takes(policy, {"id": 0.1})

    def test_a_value_of_another_type_is_another_value(self):
        assert not stored_takes({"a": ["1", "true", "null"]}, {"a": [1, True, None]})
        assert stored_takes({"a": [{"anything-but": ["1"]}]}, {"a": 1})

    @pytest.mark.parametrize("text", ['a"b', "a\\b", "a.b", "(", "$", "é\n\t", "***", "\x01"])
    def test_any_text_is_a_key_and_a_value(self, text):
        written = text.replace("\\", "\\\\").replace("*", "\\*")
        for operator in (
            text,
            {"prefix": text},
            {"suffix": text},
            {"equals-ignore-case": text},
            {"wildcard": f"*{written}"},
        ):
            assert stored_takes({text: [operator]}, {text: text}), operator
            assert not stored_takes({text: [operator]}, {text: "other"}), operator

    def test_an_element_that_is_an_array_is_no_value(self):
        assert not stored_takes({"a": ["x", {"anything-but": "y"}]}, {"a": [["x"]]})


WRONG = [
    ([], "$", "[] is no filter"),
    ({}, "$", "{} is empty"),
    ({"a": "x"}, "$.a", '"x" is no list'),
    ({"a": []}, "$.a", "[] is empty"),
    ({"a": [["x"]]}, "$.a[0]", '["x"] is no value'),
    ({"a": [{}]}, "$.a[0]", "{} is not one operator"),
    ({"a": [{"prefix": "x", "suffix": "y"}]}, "$.a[0]", "is not one operator"),
    ({"a": ["x", {"prefx": "x"}]}, "$.a[1].prefx", '"prefx" is unknown'),
    ({"a": [{"prefix": 5}]}, "$.a[0].prefix", "5 is no text"),
    ({"a": [{"suffix": ""}]}, "$.a[0].suffix", '"" is no text'),
    ({"a": [{"suffix": "x" * 1001}]}, "$.a[0].suffix", "use 1 to 1,000 characters"),
    ({"a": [{"wildcard": "x**"}]}, "$.a[0].wildcard", "two asterisks"),
    ({"a": [{"wildcard": "x\\y"}]}, "$.a[0].wildcard", "lone backslash"),
    ({"a": [{"exists": 1}]}, "$.a[0].exists", "neither true nor false"),
    ({"a": [{"cidr": "10.0.0.0"}]}, "$.a[0].cidr", "no network"),
    ({"a": [{"cidr": "10.0.0.0/33"}]}, "$.a[0].cidr", "no network"),
    ({"a": [{"cidr": "2001::db8::/32"}]}, "$.a[0].cidr", "no network"),
    ({"a": [{"anything-but": []}]}, "$.a[0].anything-but", "[] is empty"),
    ({"a": [{"anything-but": [["x"]]}]}, "$.a[0].anything-but[0]", "is no value"),
    ({"a": [{"anything-but": {"cidr": "::/0"}}]}, "$.a[0].anything-but", "is unknown"),
    ({"a": [{"anything-but": {"prefix": [1]}}]}, "$.a[0].anything-but.prefix[0]", "no text"),
    ({"a": [10**31]}, "$.a[0]", "out of range"),
    ({"a": [{"numeric": ["<"]}]}, "$.a[0].numeric", "no comparison"),
    ({"a": [{"numeric": ["!=", 5]}]}, "$.a[0].numeric", "no comparison"),
    ({"a": [{"numeric": ["<", "5"]}]}, "$.a[0].numeric", "no comparison"),
    ({"a": [{"numeric": ["<", 5, ">", 1]}]}, "$.a[0].numeric", "no comparison"),
    ({"a": [{"numeric": [">", 5, "<", 1]}]}, "$.a[0].numeric", "empty range"),
    ({"a": [{"numeric": [">", 5, "<", 10**31]}]}, "$.a[0].numeric[3]", "out of range"),
    ({"$or": {"a": ["x"]}}, "$.$or", "is no choice"),
    ({"$or": [{"a": ["x"]}]}, "$.$or", "is no choice"),
    ({"$or": [{"a": ["x"]}, {"b": "x"}]}, "$.$or[1].b", "is no list"),
    ({"a b": {"c": {"d": "x"}}}, '$."a b".c.d', "is no list"),
    ({"a": {"b": {"c": {"d": {"e": {"f": ["x"]}}}}}}, "$.a.b.c.d.e", "nested too deeply"),
    ({"a": list(range(257))}, "$", "it has 257 values"),
    ({"a" * 65_536: ["x"]}, "$", "bytes of JSON"),
]


class TestRefusals:
    @pytest.mark.parametrize(("policy", "place", "reason"), WRONG)
    def test_a_wrong_filter_is_refused_with_its_place_here_and_in_the_database(
        self, policy, place, reason, subscribe
    ):
        with pytest.raises(InvalidFilter) as caught:
            check_filter(policy, "body")
        assert caught.value.path == place
        assert reason in caught.value.reason
        row = subscribe("orders.placed", "invoices")
        with pytest.raises(IntegrityError) as refused, transaction.atomic():
            Subscription.objects.filter(pk=row.pk).update(filter=policy, filter_scope="body")
        first_line = str(refused.value).partition("\n")[0]
        assert first_line == str(caught.value)

    def test_headers_hold_no_objects(self, subscribe):
        with pytest.raises(InvalidFilter, match=r"at \$\.a: .* headers hold none"):
            check_filter({"a": {"b": ["x"]}})
        with pytest.raises(IntegrityError, match=r"at \$\.a: .* headers hold none"):
            subscribe("a", "invoices", filter={"a": {"b": ["x"]}})

    def test_a_filter_is_on_headers_or_the_body(self, subscribe):
        with pytest.raises(InvalidFilter, match="filter on headers or body"):
            check_filter(None, "both")
        with pytest.raises(IntegrityError, match="filter on headers or body"):
            subscribe("a", "invoices", filter={"a": ["x"]}, filter_scope="both")

    def test_the_filter_of_a_subscription_that_is_not_active_is_checked(self, subscribe):
        with pytest.raises(IntegrityError, match="Invalid filter"):
            subscribe("a", "invoices", filter={"a": "x"}, is_active=False)

    @pytest.mark.parametrize(
        "value", [{"a": ["\0"]}, {"a": ["\ud800"]}, {1: ["x"]}, {"a": [float("nan")]}, {"a": [b""]}]
    )
    def test_what_is_no_json_is_refused(self, value):
        with pytest.raises(InvalidFilter):
            check_filter(value)


def test_the_parts_of_a_filter_are_its_keys():
    policy = {"a": {"b": ["x"], "c": [1]}, "$or": [{"d": [1]}, {"e": [2]}]}
    assert [(part.place, part.filter) for part in parts(policy)] == [
        ("$.a.b", {"a": {"b": ["x"]}}),
        ("$.a.c", {"a": {"c": [1]}}),
        ("$.$or", {"$or": [{"d": [1]}, {"e": [2]}]}),
    ]


# Small alphabets, so that filters and values meet.
KEYS = st.sampled_from(["a", "b", "c"])
TEXTS = st.text(alphabet="abA*.\\\n", max_size=4)
SOME = st.text(alphabet="abA.", min_size=1, max_size=2)
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.25, 10**20, 1e-9]))
ADDRESSES = st.sampled_from(["10.0.0.1", "10.1.0.1", "::1", "2001:db8::1", "10.0.0", "1:2", ":::"])
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, SOME, ADDRESSES)
DOCUMENTS = st.recursive(
    st.dictionaries(KEYS, st.one_of(SCALARS, st.lists(SCALARS, max_size=3))),
    lambda inner: st.dictionaries(
        KEYS, st.one_of(SCALARS, inner, st.lists(st.one_of(SCALARS, inner), max_size=3))
    ),
    max_leaves=6,
)
PATTERNS = st.lists(st.sampled_from(["a", "b", ".", "\\*", "\\\\"]), min_size=1, max_size=3).map(
    lambda words: "*".join(words)
)


def one_or_more(values):
    return st.one_of(values, st.lists(values, min_size=1, max_size=3))


ALL = st.one_of(
    SCALARS,
    st.builds(lambda word: {"prefix": word}, SOME),
    st.builds(lambda word: {"suffix": word}, SOME),
    st.builds(lambda word: {"equals-ignore-case": word}, SOME),
    st.builds(lambda word: {"wildcard": word}, PATTERNS),
    st.builds(lambda values: {"anything-but": values}, one_or_more(SCALARS)),
    st.builds(
        lambda name, words: {"anything-but": {name: words}},
        st.sampled_from(["prefix", "suffix", "equals-ignore-case", "wildcard"]),
        one_or_more(SOME),
    ),
    st.builds(lambda value: {"exists": value}, st.booleans()),
    st.builds(
        lambda sign, number: {"numeric": [sign, number]},
        st.sampled_from(["=", "<", "<=", ">", ">="]),
        NUMBERS,
    ),
    st.builds(
        lambda low, lower, upper: {"numeric": [lower, low, upper, low + 2]},
        st.integers(-3, 3),
        st.sampled_from([">", ">="]),
        st.sampled_from(["<", "<="]),
    ),
    st.builds(
        lambda network: {"cidr": network},
        st.sampled_from(["10.0.0.0/8", "10.0.0.0/24", "::/0", "2001:db8::/32", "0.0.0.0/0"]),
    ),
)
LISTS = st.lists(ALL, min_size=1, max_size=3)
POLICIES = st.recursive(
    st.dictionaries(KEYS, LISTS, min_size=1, max_size=2),
    lambda inner: st.one_of(
        st.dictionaries(KEYS, st.one_of(LISTS, inner), min_size=1, max_size=2),
        st.builds(lambda choices: {"$or": choices}, st.lists(inner, min_size=2, max_size=3)),
        st.builds(
            lambda first, choices: first | {"$or": choices},
            st.dictionaries(KEYS, LISTS, max_size=1),
            st.lists(inner, min_size=2, max_size=2),
        ),
    ),
    max_leaves=3,
)


@given(policy=POLICIES, documents=st.lists(DOCUMENTS, min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_the_database_takes_what_a_naive_reading_takes(policy, documents):
    check_filter(policy, "body")
    text = json.dumps(policy)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT messaging_matches(document, messaging_compile_filter(%s::jsonb, 'body'),"
            " messaging_filter_networks(%s::jsonb)) FROM jsonb_array_elements(%s::jsonb)"
            " WITH ORDINALITY AS each (document, number) ORDER BY number",
            [text, text, json.dumps(documents)],
        )
        found = [row[0] for row in cursor.fetchall()]
    assert found == [takes(policy, document) for document in documents]
