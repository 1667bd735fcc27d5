"""Seek: say which of what waits a seek takes away before it goes on from its point."""

from typing import Any, NamedTuple


class Overtaken(NamedTuple):
    """What waits and was published to where a snapshot has seen it; of one subscription or all."""

    snapshot: str
    subscription_id: int | None = None

    @property
    def where(self) -> str:
        """Conditions on ``looked``, the row that waits, and ``message``, its payload."""
        seen = "pg_visible_in_snapshot(message.transaction, %(snapshot)s::pg_snapshot)"
        if self.subscription_id is None:
            return seen
        return f"looked.subscription_id = %(subscription)s AND {seen}"

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of ``where``."""
        return {"snapshot": self.snapshot, "subscription": self.subscription_id}
