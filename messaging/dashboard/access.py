"""Access: what a user may see and do on the operators' pages."""

from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user

from .. import conf

MAY_PAUSE = "messaging.pause_queue"

# Codes that a socket is closed with, after those of HTTP.
SIGNED_OUT = 4401
NOT_ALLOWED = 4403


@dataclass(frozen=True, kw_only=True, slots=True)
class Viewer:
    """What one user may see and do; users with equal rights are equal, and see the same page."""

    sees_admin: bool
    sees_queues: bool
    sees_messages: bool
    sees_payloads: bool
    sees_dead_letters: bool
    sees_workers: bool
    may_pause: bool


def viewer_of(user: Any) -> Viewer | None:
    """Return what an active user may see; None without the permission for the page."""
    if not user.is_active or not user.has_perm(conf.DASHBOARD_PERMISSION):
        return None
    return Viewer(
        sees_admin=bool(getattr(user, "is_staff", False)),
        sees_queues=user.has_perm("messaging.view_queue"),
        sees_messages=user.has_perm("messaging.view_message"),
        sees_payloads=user.has_perm("messaging.view_payload"),
        sees_dead_letters=user.has_perm("messaging.view_deadletter"),
        sees_workers=user.has_perm("messaging.view_worker"),
        may_pause=user.has_perm(MAY_PAUSE),
    )


class Denied(Exception):
    """A session that may not follow the live page; ``code`` is what its socket is closed with."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)


def viewer_of_session(session_key: str | None) -> Viewer:
    """Return what a session's user may see, as the session store and the user table have it now."""
    session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    # As a request does: it compares the session with the user's password, and the user is new.
    request: Any = SimpleNamespace(session=session)
    user = get_user(request)
    if not user.is_authenticated or not user.is_active:
        raise Denied(SIGNED_OUT)
    viewer = viewer_of(user)
    if viewer is None:
        # A user deleted between the two look-ups has lost the session, not a permission.
        raise Denied(NOT_ALLOWED if get_user(request).is_authenticated else SIGNED_OUT)
    return viewer
