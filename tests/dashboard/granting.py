"""A backend that grants single topics, for tests of who may see what."""

from typing import Any

from messaging.models import Topic


class OneByOne:
    """A backend that grants single topics: those whose description names the user."""

    def authenticate(self, request: Any, **credentials: Any) -> None:
        return None

    def has_perm(self, user: Any, permission: str, topic: Any = None) -> bool:
        if permission == "messaging.view_payload" and "bodies" not in user.first_name:
            return False
        return (
            isinstance(topic, Topic)
            and permission in ("messaging.view_topic", "messaging.view_payload")
            and user.username in topic.description
        )
