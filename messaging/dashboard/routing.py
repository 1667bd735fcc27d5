"""Route WebSocket connections to the live page and the events, from pages of this site only.

``config/asgi.py`` serves :data:`websocket_application` for the protocol "websocket".
"""

from collections.abc import Awaitable, Callable
from typing import Any

from channels.security.websocket import AllowedHostsOriginValidator, WebsocketDenier
from channels.sessions import SessionMiddlewareStack
from django.urls import NoReverseMatch, reverse

from .event_socket import EventSocket
from .sockets import LiveSocket

Scope = dict[str, Any]

SOCKETS: dict[str, Any] = {"messaging:live": LiveSocket, "messaging:events": EventSocket}


async def route(scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Hand the connection to the socket of its address, or refuse an address that nobody has."""
    found = (socket for name, socket in SOCKETS.items() if _is_at(name, scope["path"]))
    socket = next(found, WebsocketDenier)
    application: Callable[..., Awaitable[None]] = socket.as_asgi()
    await application(scope, receive, send)


def _is_at(name: str, path: str) -> bool:
    # Reversed when it is asked for, so that the pages may be mounted anywhere.
    try:
        return path.endswith(reverse(name))
    except NoReverseMatch:
        return False


# The session alone: the socket looks up the user itself, at first and again and again.
websocket_application = AllowedHostsOriginValidator(SessionMiddlewareStack(route))
