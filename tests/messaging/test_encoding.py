"""Bodies and headers are encoded as Django does, or refused with the place of the fault."""

import datetime
import decimal
import enum
import json
import tracemalloc
import uuid
from collections import OrderedDict, namedtuple
from types import MappingProxyType

import pytest
from django.utils.translation import gettext_lazy, ngettext_lazy

from messaging.encoding import (
    MAX_SECONDS,
    check_key,
    check_priority,
    check_seconds,
    digest_of,
    encode_body,
    encode_headers,
)
from messaging.exceptions import InvalidMessage, MessagingError, PayloadTooLarge

Point = namedtuple("Point", "x y")


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def nested(levels):
    body = []
    for _ in range(levels - 1):
        body = [body]
    return body


def circular():
    body = {"self": None}
    body["self"] = body
    return body


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [None, 0, "", False, True, {}, [], [{}], 1.5, -7, "text", "ü€😀", {"a": [1, {"b": None}]}],
        ids=repr,
    )
    def test_any_json_value_is_a_body(self, body):
        text = encode_body(body)
        assert json.loads(text) == body
        assert type(json.loads(text)) is type(body)

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (datetime.datetime(2026, 11, 24, 9, 30, 0, 123456), "2026-11-24T09:30:00.123"),
            (datetime.datetime(2026, 11, 24, 9, 30, tzinfo=datetime.UTC), "2026-11-24T09:30:00Z"),
            (datetime.date(2026, 11, 24), "2026-11-24"),
            (datetime.time(9, 30), "09:30:00"),
            (datetime.timedelta(days=1, seconds=2), "P1DT00H00M02S"),
            (decimal.Decimal("1.10"), "1.10"),
            (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
            (gettext_lazy("Yes"), "Yes"),
            (ngettext_lazy("%d day", "%d days", 2) % 2, "2 days"),
            (Colour.RED, "red"),
        ],
    )
    def test_dates_decimals_uuids_and_lazy_texts_become_strings_as_in_django(self, body, text):
        assert json.loads(encode_body(body)) == text
        assert json.loads(encode_body({"a": [body]})) == {"a": [text]}

    @pytest.mark.parametrize(
        ("body", "meant"),
        [
            ((1, (2,)), [1, [2]]),
            (Point(1, 2), [1, 2]),
            (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
            (Level.HIGH, 3),
        ],
    )
    def test_tuples_become_arrays_and_subclasses_what_they_are(self, body, meant):
        assert json.loads(encode_body(body)) == meant

    def test_large_integers_are_exact(self):
        for number in (2**53 + 1, -(2**63) - 1, 10**4300 - 1, -(10**4300 - 1)):
            assert json.loads(encode_body({"n": number}))["n"] == number

    @pytest.mark.parametrize(
        ("body", "path", "reason"),
        [
            ("a\0b", "$", "NUL"),
            ({"a": "x\0"}, "$.a", "NUL"),
            ({"a\0b": 1}, r'$["a\u0000b"]', "NUL"),
            ({"a": ["\ud800"]}, "$.a[0]", "surrogate"),
            ({"\udfff": 1}, r'$["\udfff"]', "surrogate"),
            ({"ü": "ü\0"}, "$.ü", "NUL"),
            (float("nan"), "$", "nan is not JSON"),
            ({"lines": [1, {"price": float("inf")}]}, "$.lines[1].price", "inf is not JSON"),
            ([float("-inf")], "$[0]", "-inf is not JSON"),
            ({"n": 10**4300}, "$.n", "4,300 digits"),
            ([-(10**4300)], "$[0]", "4,300 digits"),
            ({1: "a"}, "$", "key is a string, not 1"),
            ({"a": {None: 1}}, "$.a", "key is a string, not None"),
            ({"a": {gettext_lazy("Yes"): 1}}, "$.a", "key is a string"),
            ({"a": b"bytes"}, "$.a", "builtins.bytes is not JSON"),
            ({"a b": [object()]}, '$["a b"][0]', "builtins.object is not JSON"),
            ({1, 2}, "$", "builtins.set is not JSON"),
            (complex(1, 2), "$", "builtins.complex is not JSON"),
            (datetime.time(9, 30, tzinfo=datetime.UTC), "$", "time zone"),
            ({"items": (n for n in range(3))}, "$.items", "builtins.generator is not JSON"),
            (nested(65), "$" + "[0]" * 64, "deeper than 64"),
            (circular(), "$" + ".self" * 39 + ".sel", "circular"),
        ],
    )
    def test_what_json_or_postgresql_cannot_hold_is_refused_with_its_path(self, body, path, reason):
        with pytest.raises(InvalidMessage) as refused:
            encode_body(body)
        assert refused.value.path == path
        assert reason in str(refused.value)
        assert path in str(refused.value)
        assert refused.value.index is None
        assert isinstance(refused.value, MessagingError)
        assert isinstance(refused.value, ValueError)

    def test_64_levels_are_allowed(self):
        assert json.loads(encode_body(nested(64))) == nested(64)

    def test_the_path_after_a_good_branch_is_that_of_the_bad_one(self):
        with pytest.raises(InvalidMessage) as refused:
            encode_body({"good": [{"deep": [1, 2]}], "bad": [0, {"x": b""}]})
        assert refused.value.path == "$.bad[1].x"

    def test_an_item_of_a_batch_is_named_by_its_index(self):
        with pytest.raises(InvalidMessage, match=r"item 7, \$\.a: ") as refused:
            encode_body({"a": b""}, index=7)
        assert refused.value.index == 7

    def test_a_refusal_never_shows_the_payload(self):
        secret = "s3cret" * 1000
        for body in ({secret: b""}, {"a": secret + "\0"}, {secret: {secret: float("nan")}}):
            with pytest.raises(InvalidMessage) as refused:
                encode_body(body)
            assert len(str(refused.value)) < 400


class TestSizes:
    def test_a_body_may_have_a_mebibyte_of_json(self):
        assert len(encode_body("x" * (1024 * 1024 - 2))) == 1024 * 1024

    @pytest.mark.parametrize("character", ["x", "ü", "\\"])
    def test_a_byte_more_is_refused_with_size_and_limit(self, character, settings):
        settings.MESSAGING = {"MAX_BODY_BYTES": 1000}
        encode_body(character * 499)
        with pytest.raises(PayloadTooLarge, match="the limit is 1,000") as refused:
            encode_body(character * 999)
        assert refused.value.limit == 1000
        assert 1000 < refused.value.size <= 2000
        assert refused.value.path == "$"

    def test_300_megabytes_are_refused_without_a_second_copy(self):
        huge = "x" * 300_000_000
        tracemalloc.start()
        try:
            with pytest.raises(PayloadTooLarge) as refused:
                encode_body({"a": [huge]})
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert refused.value.size >= 300_000_000
        assert peak < 1_000_000

    def test_numbers_count_too(self):
        with pytest.raises(PayloadTooLarge):
            encode_body([1] * 600_000)

    def test_long_numbers_are_refused_before_they_are_written_out(self):
        numbers = [10**4299] * 10_000
        tracemalloc.start()
        try:
            with pytest.raises(PayloadTooLarge):
                encode_body(numbers)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000

    def test_a_list_that_holds_itself_again_and_again_is_refused_at_once(self):
        # Written out it would have 10 to the power of 30 items; walking it would never end.
        body: list[object] = [1]
        for _ in range(30):
            body = [body] * 10
        with pytest.raises(PayloadTooLarge):
            encode_body(body)

    def test_an_item_of_a_batch_that_is_too_large_is_named(self):
        with pytest.raises(PayloadTooLarge, match="item 3") as refused:
            encode_body("x" * 2_000_000, index=3)
        assert refused.value.index == 3


class TestHeaders:
    @pytest.mark.parametrize(
        "headers",
        [None, {}, {"trace": "1", "n": 1, "f": 1.5, "b": True, "none": None, "e": "", "k ü": "€"}],
    )
    def test_headers_are_strings_to_scalars(self, headers):
        assert json.loads(encode_headers(headers)) == (headers or {})

    def test_any_mapping_will_do(self):
        assert json.loads(encode_headers(MappingProxyType({"a": 1}))) == {"a": 1}

    @pytest.mark.parametrize(
        ("headers", "reason"),
        [
            ({"a": "x\r\ny"}, "no line breaks"),
            ({"a": "x\ny"}, "no line breaks"),
            ({"a": ["x"]}, "not list"),
            ({"a": {}}, "not dict"),
            ({"a": b"x"}, "not bytes"),
            ({"a": datetime.date(2026, 1, 1)}, "not date"),
            ({"a": "\0"}, "NUL"),
            ({"a": "\ud800"}, "surrogate"),
            ({"a": float("nan")}, "nan is not JSON"),
            ({"a": 10**4300}, "4,300 digits"),
            ({1: "x"}, "printable"),
            ({"": "x"}, "1 to 200"),
            ({"a" * 201: "x"}, "1 to 200"),
            ({"a\nb": "x"}, "printable"),
            ({"\ud800": "x"}, "printable"),
            ({"x-messaging-id": "x"}, "reserved"),
            ({"X-Messaging-Id": "x"}, "reserved"),
        ],
    )
    def test_anything_else_is_refused_by_the_name_of_the_header(self, headers, reason):
        with pytest.raises(InvalidMessage, match=reason) as refused:
            encode_headers({"good": "1", **headers})
        assert refused.value.path.startswith("headers[")
        assert str(refused.value).isprintable()

    @pytest.mark.parametrize("headers", ["text", 5, 0, "", [], ["a"], [("a", "b")]], ids=repr)
    def test_what_is_no_mapping_is_refused(self, headers):
        with pytest.raises(InvalidMessage, match="mapping of strings"):
            encode_headers(headers)

    def test_64_kibibytes_are_allowed_and_a_byte_more_is_not(self):
        assert len(encode_headers({"a": "x" * (64 * 1024 - 8)})) == 64 * 1024
        with pytest.raises(PayloadTooLarge, match="headers") as refused:
            encode_headers({"a": "x" * (64 * 1024 - 7)})
        assert (refused.value.size, refused.value.limit) == (64 * 1024 + 1, 64 * 1024)
        with pytest.raises(PayloadTooLarge, match="headers"):
            encode_headers({"a": "x" * 1_000_000})

    def test_ten_thousand_headers_are_too_many(self):
        with pytest.raises(PayloadTooLarge):
            encode_headers({f"{n}": 0 for n in range(10_000)})


class TestOptions:
    @pytest.mark.parametrize("priority", [-100, 0, 100])
    def test_a_priority_goes_from_minus_100_to_100(self, priority):
        assert check_priority(priority) == priority

    @pytest.mark.parametrize("priority", [-101, 101, 2**31, 1.0, "1", None, True], ids=repr)
    def test_any_other_priority_is_refused(self, priority):
        with pytest.raises(InvalidMessage, match="-100 to 100"):
            check_priority(priority)

    @pytest.mark.parametrize("key", ["a", "k" * 200, "ü/€ 😀\n"])
    def test_a_key_has_1_to_200_characters(self, key):
        assert check_key(key, what="ordering_key") == key

    @pytest.mark.parametrize("key", ["", "k" * 201, "a\0", "\ud800", 5, None, b"a"], ids=repr)
    def test_any_other_key_is_refused_by_name(self, key):
        with pytest.raises(InvalidMessage, match="is no ordering_key: use a string of 1 to 200"):
            check_key(key, what="ordering_key")

    def test_seconds_are_numbers_or_timedeltas(self):
        assert check_seconds(1.5, what="delay") == 1.5
        assert check_seconds(datetime.timedelta(minutes=1), what="delay") == 60.0
        assert check_seconds(-(10**400), what="delay") == -float(MAX_SECONDS)
        assert check_seconds(float("-inf"), what="delay") == -float(MAX_SECONDS)
        assert check_seconds(MAX_SECONDS, what="delay") == float(MAX_SECONDS)

    @pytest.mark.parametrize("value", [float("nan"), "5", True, decimal.Decimal(5), []], ids=repr)
    def test_what_is_no_time_is_refused(self, value):
        with pytest.raises(InvalidMessage, match="is no delay: use seconds or a timedelta"):
            check_seconds(value, what="delay")

    @pytest.mark.parametrize(
        "value", [float("inf"), datetime.timedelta.max, 10**400, MAX_SECONDS + 1], ids=repr
    )
    def test_what_would_end_after_the_calendar_is_refused(self, value):
        with pytest.raises(InvalidMessage, match=r"at most 249,134,400,000 seconds"):
            check_seconds(value, what="delay")


class TestDigests:
    def test_the_order_of_keys_does_not_change_a_digest(self):
        assert digest_of('{"a":1,"b":[2]}') == digest_of('{"b":[2],"a":1}')

    @pytest.mark.parametrize("other", ['{"a":2}', '{"a":"1"}', '{"a":1,"b":null}', "[1]", "null"])
    def test_another_meaning_changes_it(self, other):
        assert digest_of('{"a":1}') != digest_of(other)
