"""Values: ids that tell duplicates, and messages that nobody can change."""

import copy
import datetime
import json
import pickle

import pytest

from messaging.messages import Delivered, Message, MessageId


@pytest.fixture
def message():
    """Return a message as a handler gets it."""
    delivered = Delivered(
        id=3, queue_id=1, priority=0, message_id=7, attempt=1, subscription_id=None
    )
    return Message(
        id=7,
        queue="invoices",
        topic=None,
        body={"order": 1},
        headers={},
        priority=0,
        attempt=1,
        ordering_key=None,
        published_at=datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC),
        delivery=delivered,
    )


class TestMessageIds:
    def test_an_id_is_an_integer(self):
        message_id = MessageId(7)
        assert (message_id, message_id.duplicate) == (7, False)
        assert json.dumps({"id": message_id}) == '{"id": 7}'
        assert {7: "known"}[message_id] == "known"

    def test_the_id_of_a_duplicate_says_so(self):
        assert MessageId.of_duplicate(7) == 7
        assert MessageId.of_duplicate(7).duplicate
        assert not MessageId(7).duplicate

    @pytest.mark.parametrize("duplicated", [copy.copy, lambda id: pickle.loads(pickle.dumps(id))])  # noqa: S301
    def test_a_copy_still_says_so(self, duplicated):
        assert duplicated(MessageId.of_duplicate(7)).duplicate


class TestMessages:
    def test_a_message_can_be_a_member_of_a_set_whatever_its_body(self, message):
        assert message in {message}
        assert copy.copy(message) not in {message}
