"""Whatever a body is, the short way of encoding it writes what the long way writes."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging import encoding
from messaging.encoding import digest_of, encode_body, encode_headers
from messaging.exceptions import InvalidMessage

texts = st.text(st.characters(exclude_categories=()))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)
# What only the long way knows.
unusual = st.binary() | st.dictionaries(st.integers(), st.none(), min_size=1) | st.dates()
bodies = st.dictionaries(texts, values | unusual, max_size=5)


def the_long_way(body):
    """Return what the long way writes, or why it refuses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_encode_simple", lambda body: None)
        return written(body)


def written(body):
    try:
        return encode_body(body)
    except InvalidMessage as refused:
        return str(refused)


@given(bodies)
def test_the_short_way_of_a_body_writes_what_the_long_way_writes(body):
    assert written(body) == the_long_way(body)


@given(values)
def test_what_is_accepted_comes_back_as_it_was_and_can_be_stored(body):
    text = written(body)
    if text.startswith("Invalid message"):
        return
    assert json.loads(text) == body
    text.encode()
    assert "\\u0000" not in text.replace("\\\\", "")


@given(values)
def test_a_digest_does_not_depend_on_the_order_of_keys(body):
    text = written(body)
    if not text.startswith("Invalid message"):
        turned = json.dumps(_turned(json.loads(text)))
        assert digest_of(turned) == digest_of(text)


def _turned(value):
    if isinstance(value, dict):
        return {key: _turned(value[key]) for key in reversed(value)}
    return [_turned(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(texts, scalars, max_size=5))
def test_headers_are_stored_as_they_are_or_refused(headers):
    try:
        text = encode_headers(headers)
    except InvalidMessage:
        return
    assert json.loads(text) == headers
    assert not any(isinstance(v, float) and not math.isfinite(v) for v in headers.values())
