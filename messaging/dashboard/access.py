"""Access: what a user may see and do on the operators' pages."""

from collections.abc import Collection
from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user

from .. import conf
from ..models import Topic
from ..names import pattern_matches

MAY_PAUSE = "messaging.pause_queue"
VIEW_TOPIC = "messaging.view_topic"
VIEW_PAYLOAD = "messaging.view_payload"

# The pattern of all topics.
EVERYTHING = "#"

# Codes that a socket is closed with, after those of HTTP.
SIGNED_OUT = 4401
NOT_ALLOWED = 4403
NOT_FOUND = 4404


@dataclass(frozen=True, kw_only=True, slots=True)
class Viewer:
    """What one user may see and do; equal ones see the same figures, whatever topics they may."""

    sees_admin: bool
    sees_queues: bool
    sees_messages: bool
    sees_dead_letters: bool
    sees_workers: bool
    may_pause: bool
    rights: "Rights" = field(compare=False)


def viewer_of(user: Any) -> Viewer | None:
    """Return what an active user may see; None without the permission for the page."""
    if not user.is_active or not user.has_perm(conf.DASHBOARD_PERMISSION):
        return None
    return Viewer(
        sees_admin=bool(getattr(user, "is_staff", False)),
        sees_queues=user.has_perm("messaging.view_queue"),
        sees_messages=user.has_perm("messaging.view_message"),
        sees_dead_letters=user.has_perm("messaging.view_deadletter"),
        sees_workers=user.has_perm("messaging.view_worker"),
        may_pause=user.has_perm(MAY_PAUSE),
        rights=rights_of(user, EVERYTHING),
    )


class Denied(Exception):
    """A session that may not follow the live page; ``code`` is what its socket is closed with."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)


def viewer_of_session(session_key: str | None) -> Viewer:
    """Return what a session's user may see, as the session store and the user table have it now."""
    user = user_of_session(session_key)
    viewer = viewer_of(user)
    if viewer is None:
        # A user deleted between the two look-ups has lost the session, not a permission.
        user_of_session(session_key)
        raise Denied(NOT_ALLOWED)
    return viewer


def user_of_session(session_key: str | None) -> Any:
    """Return the user who is logged in with a session now; raise Denied when nobody is."""
    session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    # As a request does: it compares the session with the user's password, and the user is new.
    request: Any = SimpleNamespace(session=session)
    user = get_user(request)
    if not user.is_authenticated or not user.is_active:
        raise Denied(SIGNED_OUT)
    return user


@dataclass(frozen=True, kw_only=True, slots=True)
class Rights:
    """Which events of a topic pattern a user may have, as of the last look.

    ``topics`` and ``bodies`` are names, None stands for all; ``known`` are the topics looked at,
    and ``only`` is the id of the topic whose name the pattern is.
    """

    user: str
    pattern: str
    known: frozenset[str]
    topics: frozenset[str] | None
    bodies: frozenset[str] | None
    only: int | None

    def knows(self, topic: str) -> bool:
        """Tell whether all is known of a topic that the pattern matches."""
        return (self.topics is None and self.bodies is None) or topic in self.known

    def matches(self, topic: str) -> bool:
        """Tell whether the pattern matches a topic."""
        return pattern_matches(self.pattern, topic)

    def allows(self, topic: str) -> bool:
        """Tell whether the user may have the events of a topic that the pattern matches."""
        return self.topics is None or topic in self.topics

    def topics_of(self, topic: str | None) -> Collection[str] | None:
        """Return the topics to read for one that is asked for, or for all; None stands for all."""
        if topic is None:
            return self.topics
        return [topic] if self.allows(topic) else []

    @property
    def is_empty(self) -> bool:
        """Tell whether there is no topic that the user may have the events of."""
        return self.topics is not None and not self.topics

    @property
    def hides_bodies(self) -> bool:
        """Tell whether the user may see no bodies at all."""
        return self.bodies is not None and not self.bodies

    def shows(self, topic: str) -> bool:
        """Tell whether the user may see the bodies of a topic."""
        return self.bodies is None or topic in self.bodies


def has_right(user: Any, permission: str, topic: Topic) -> bool:
    """Tell whether a user has a permission for all topics, or a backend grants it for this one."""
    return bool(user.has_perm(permission) or user.has_perm(permission, topic))


def rights_of(user: Any, pattern: str) -> Rights:
    """Return what a user may have of a pattern, which may be nothing."""
    is_name = _is_name(pattern)
    sees_all, sees_bodies = user.has_perm(VIEW_TOPIC), user.has_perm(VIEW_PAYLOAD)
    found: list[Topic] = []
    if is_name:
        found = list(Topic.objects.filter(name=pattern))
    elif not (sees_all and sees_bodies):
        found = [topic for topic in Topic.objects.all() if pattern_matches(pattern, topic.name)]
    allowed = [topic for topic in found if has_right(user, VIEW_TOPIC, topic)]
    bodies = [topic.name for topic in allowed if has_right(user, VIEW_PAYLOAD, topic)]
    return Rights(
        user=str(user.pk),
        pattern=pattern,
        known=frozenset(topic.name for topic in found),
        topics=None if sees_all and not is_name else frozenset(topic.name for topic in allowed),
        bodies=None if sees_bodies else frozenset(bodies),
        only=allowed[0].pk if is_name and allowed else None,
    )


def rights_of_session(session_key: str | None, pattern: str) -> Rights:
    """Return what a session's user may have of a pattern; raise Denied without anything.

    Whoever was never let in is not told which of the two it was: see Stream.open.
    """
    rights = rights_of(user_of_session(session_key), pattern)
    if rights.is_empty:
        user_of_session(session_key)
        raise Denied(NOT_FOUND if _is_name(pattern) and not rights.known else NOT_ALLOWED)
    return rights


def _is_name(pattern: str) -> bool:
    return not {"*", "#"} & set(pattern.split("."))
