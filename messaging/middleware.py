"""Middleware: let the messages that a request publishes say which user it was."""

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from .sources import publishing_as

GetResponse = Callable[[HttpRequest], Any]


@sync_and_async_middleware
def publisher(get_response: GetResponse) -> GetResponse:
    """Name the user of the request in the timeline of the messages that it publishes.

    Stands below ``AuthenticationMiddleware``. The user is looked up when a message is published
    and not before; a request that publishes nothing costs nothing.
    """
    if iscoroutinefunction(get_response):

        async def respond_later(request: HttpRequest) -> HttpResponseBase:
            with publishing_as(lambda: _name_of(request)):
                response: HttpResponseBase = await get_response(request)
            return response

        return respond_later

    def respond(request: HttpRequest) -> HttpResponseBase:
        with publishing_as(lambda: _name_of(request)):
            response: HttpResponseBase = get_response(request)
        return response

    return respond


def _name_of(request: HttpRequest) -> str:
    user = getattr(request, "user", None)
    return "" if user is None else user.get_username()
