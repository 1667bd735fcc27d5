"""Sources: who published a message, and in which process."""

import os
import socket
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.db import connections
from django.http import HttpResponse
from django.test import RequestFactory

from messaging import asend, publish_many, send
from messaging.middleware import publisher
from messaging.models import Message, Topic
from messaging.sources import publishing_as

pytestmark = pytest.mark.django_db


def here() -> str:
    return f"{socket.gethostname()}/{os.getpid()}"


def source_of(message_id: int) -> str | None:
    return Message.objects.get(pk=message_id).source


@pytest.fixture
def letters(queue: Any) -> Any:
    return queue("letters")


@pytest.fixture
def sending(letters: Any) -> Any:
    def respond(request: Any) -> HttpResponse:
        return HttpResponse(str(int(send("letters", "body"))))

    return respond


def request_of(user: Any) -> Any:
    request = RequestFactory().get("/")
    request.user = user
    return request


def test_a_message_says_which_process_has_published_it(letters: Any) -> None:
    assert source_of(send("letters", 1)) == here()
    assert source_of(send("letters", 1, delay=60)) == here()


@pytest.mark.parametrize("count", [2, 600])
def test_every_message_of_a_batch_says_it(count: int) -> None:
    Topic.objects.create(name="mail.sent")
    ids = publish_many("mail.sent", range(count))
    assert {*Message.objects.filter(pk__in=ids).values_list("source", flat=True)} == {here()}


def test_a_message_says_for_whom_it_was_published(letters: Any) -> None:
    with publishing_as("nightly import"):
        message_id = send("letters", 1)
    assert source_of(message_id) == f"nightly import@{here()}"
    assert source_of(send("letters", 1)) == here()


def test_a_message_of_a_request_names_its_user(sending: Any, django_user_model: Any) -> None:
    ada = django_user_model(username="ada")
    response = publisher(sending)(request_of(ada))
    assert source_of(int(response.content)) == f"ada@{here()}"


def test_nobody_is_named_in_a_request_of_nobody(sending: Any) -> None:
    assert source_of(int(publisher(sending)(request_of(AnonymousUser())).content)) == here()
    without = RequestFactory().get("/")
    assert source_of(int(publisher(sending)(without).content)) == here()


def test_a_name_that_is_too_long_or_cannot_be_stored_refuses_no_message(letters: Any) -> None:
    with publishing_as("x\0y" * 200):
        message_id = send("letters", 1)
    assert source_of(message_id) == ("xy" * 200)[:200]


@pytest.mark.django_db(transaction=True)
async def test_a_message_of_an_asynchronous_request_names_its_user(
    letters: Any, django_user_model: Any
) -> None:
    async def respond(request: Any) -> HttpResponse:
        return HttpResponse(str(int(await asend("letters", "body"))))

    ada = django_user_model(username="ada")
    response = await publisher(respond)(request_of(ada))
    message = await Message.objects.aget(pk=int(response.content))
    assert message.source == f"ada@{here()}"
    await sync_to_async(connections.close_all)()
