"""Names of queues and topics are checked, and patterns match the topics that they should."""

import itertools

import pytest
from django.db import connection

from messaging.exceptions import InvalidName, MessagingError
from messaging.names import (
    check_pattern,
    check_queue_name,
    check_topic_name,
    pattern_matches,
    shown,
)

NOT_NAMES = [
    "",
    " ",
    "two words",
    "a" * 81,
    "a" * 256,
    "../x",
    "a/b",
    "a\n",
    "a\nb",
    "a\0b",
    "right\u202eleft",
    "\u017f",  # a long s, which upper() makes an S
    "Straße",
    "٣",
    "📦",
    "\ud800",
    "a*",
    None,
    5,
    10**5000,
    b"orders",
    ["orders"],
]

WORDS = ("a", "b")
TOPICS = [".".join(words) for n in range(1, 5) for words in itertools.product(WORDS, repeat=n)]
PATTERNS = [
    ".".join(words)
    for n in range(1, 5)
    for words in itertools.product((*WORDS, "*", "#"), repeat=n)
]


def naively(pattern: list[str], topic: list[str]) -> bool:
    """Match as the definition reads, one word after the other."""
    if not pattern:
        return not topic
    if pattern[0] == "#":
        return any(naively(pattern[1:], topic[n:]) for n in range(len(topic) + 1))
    return bool(topic) and pattern[0] in ("*", topic[0]) and naively(pattern[1:], topic[1:])


class TestNames:
    @pytest.mark.parametrize("name", ["orders", "Orders_2-b.c", "a", "0", "a" * 80])
    def test_letters_digits_underscore_dash_and_dot_make_a_name(self, name):
        assert check_queue_name(name) == name
        assert check_topic_name(name) == name

    @pytest.mark.parametrize("check", [check_queue_name, check_topic_name])
    @pytest.mark.parametrize("name", NOT_NAMES, ids=shown)
    def test_anything_else_is_refused_with_the_allowed_pattern(self, check, name):
        with pytest.raises(InvalidName, match=r"\[A-Za-z0-9_\.-\]\{1,80\}") as refused:
            check(name)
        assert isinstance(refused.value, MessagingError)
        assert isinstance(refused.value, ValueError)
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 400

    @pytest.mark.parametrize("name", [".orders", "orders.", "orders..placed", "."])
    def test_the_words_of_a_topic_are_not_empty(self, name):
        with pytest.raises(InvalidName, match=r"words separated by single dots"):
            check_topic_name(name)

    def test_upper_and_lower_case_are_different_names(self):
        assert check_queue_name("Orders") != check_queue_name("orders")


class TestPatterns:
    @pytest.mark.parametrize("pattern", ["orders.placed", "*", "#", "orders.*", "#.placed.*"])
    def test_words_stars_and_hashes_make_a_pattern(self, pattern):
        assert check_pattern(pattern) == pattern

    @pytest.mark.parametrize(
        "pattern", [*NOT_NAMES, "a..b", ".a", "a.", "a.b*", "##", "**", "a#"], ids=shown
    )
    def test_anything_else_is_refused(self, pattern):
        with pytest.raises(InvalidName, match="Invalid topic pattern"):
            check_pattern(pattern)

    @pytest.mark.parametrize(
        ("pattern", "topics"),
        [
            ("orders.placed", ["orders.placed"]),
            ("orders.*", ["orders.placed", "orders.paid"]),
            ("orders.#", ["orders", "orders.placed", "orders.paid", "orders.placed.again"]),
            ("*.placed", ["orders.placed"]),
            ("#.placed", ["orders.placed", "placed"]),
            ("#", ["orders", "orders.placed", "orders.paid", "orders.placed.again", "placed"]),
        ],
    )
    def test_a_star_is_one_word_and_a_hash_any_number(self, pattern, topics):
        every = ["orders", "orders.placed", "orders.paid", "orders.placed.again", "placed"]
        assert [name for name in every if pattern_matches(pattern, name)] == topics

    def test_python_matches_as_the_definition_reads(self):
        wrong = [
            (pattern, topic)
            for pattern in PATTERNS
            for topic in TOPICS
            if pattern_matches(pattern, topic) is not naively(pattern.split("."), topic.split("."))
        ]
        assert wrong == []

    @pytest.mark.django_db
    def test_the_database_matches_as_the_definition_reads(self):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pattern, topic, '.' || topic ~ messaging_pattern_regex(pattern) "
                "FROM unnest(%s::text[]) AS pattern, unnest(%s::text[]) AS topic",
                [PATTERNS, TOPICS],
            )
            rows = cursor.fetchall()
        assert len(rows) == len(PATTERNS) * len(TOPICS)
        wrong = [row for row in rows if row[2] is not naively(row[0].split("."), row[1].split("."))]
        assert wrong == []

    @pytest.mark.django_db
    def test_dots_dashes_and_underscores_are_only_themselves(self):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT topic FROM unnest(ARRAY['.a-b_c.d', '.axb_c.d', '.a-bxc.d', '.a-b_cxd']) "
                "AS topic WHERE topic ~ messaging_pattern_regex('a-b_c.d')"
            )
            assert cursor.fetchall() == [(".a-b_c.d",)]

    def test_many_hashes_do_not_make_a_pattern_slow(self):
        # Trying every way to share the words out would not end in a lifetime.
        assert not pattern_matches("#." * 39 + "x", "a." * 39 + "a")
        assert pattern_matches("#." * 39 + "a", "a." * 39 + "a")
