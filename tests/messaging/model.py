"""Model: what the semantics say about messages, in memory and without a clock of its own.

Time counts in units. A message of a queue is an :class:`Item`; what the database says after each
step has to be what this says.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count, groupby

NEVER = 10**9
GONE = {"done", "expired", "purged", "cancelled"}


def when(item: "Item") -> int:
    """Return when something scheduled is due."""
    return item.due


@dataclass(kw_only=True, eq=False)
class Item:
    """One message on one queue: where it is, and its place in the order there."""

    message_id: int
    queue: str
    key: str | None = None
    priority: int = 0
    attempt: int = 1
    expires: int = NEVER
    place: str = "ready"
    order: int = 0
    due: int = 0
    until: int = 0
    reason: str = ""
    # Ready in the lane of its key, or leased out of it; a skipped one has left its lane.
    in_lane: bool = False
    deaths: int = 0


@dataclass(kw_only=True)
class Lane:
    """What holds up a key: a retry until some time, or a dead letter that parked it."""

    waits_until: int = 0
    is_parked: bool = False


@dataclass
class Queue:
    """The policies of a queue that the model knows."""

    name: str
    on_failure: str = "block"
    keeps_expired: bool = False
    max_deliveries: int = 3
    backoff: int = 2
    paused: bool = False


@dataclass
class Model:
    """All messages, and what may happen to them."""

    queues: dict[str, Queue]
    now: int = 0
    items: dict[tuple[int, str], Item] = field(default_factory=dict)
    lanes: dict[tuple[str, str], Lane] = field(default_factory=dict)
    orders: count = field(default_factory=lambda: count(1))  # type: ignore[type-arg]

    # What senders do.

    def arrive(self, item: Item, delay: int = 0) -> None:
        """Take a message that was just stored; of several in the order in which they come."""
        self.items[item.message_id, item.queue] = item
        item.order = next(self.orders)
        item.in_lane = item.key is not None
        if delay > 0:
            item.place, item.due = "scheduled", self.now + delay

    # What workers and holders do.

    def deliverable(self, queue: str) -> list[Item]:
        """Return what may be taken next from a queue, one of each key; expired ones too."""
        if self.queues[queue].paused:
            return []
        ready = sorted(self._at(queue, "ready"), key=lambda item: item.order)
        busy = {item.key for item in self._at(queue, "leased") if item.in_lane}
        found, heads = [], set()
        for item in ready:
            if not item.in_lane:
                found.append(item)
            elif item.key not in heads:
                heads.add(item.key)
                if item.key not in busy and self._is_open(item):
                    found.append(item)
        return found

    def live(self, queue: str) -> list[Item]:
        """Return what has to be delivered from a queue when asked for."""
        return [item for item in self.deliverable(queue) if not self.is_expired(item)]

    def is_expired(self, item: Item) -> bool:
        return item.expires <= self.now

    def may_precede(self, taken: Item) -> list[Item]:
        """Return which others had to be delivered before one that was taken without a key."""
        return [
            item
            for item in self.live(taken.queue)
            if not item.in_lane and (-item.priority, item.order) < (-taken.priority, taken.order)
        ]

    def acknowledge(self, item: Item) -> None:
        item.place = "done"

    def hold(self, item: Item, length: int) -> None:
        item.place, item.until = "leased", self.now + length

    def is_held(self, item: Item) -> bool:
        return item.place == "leased" and item.until > self.now

    def expire(self, item: Item) -> None:
        """Settle what nobody handled in its time."""
        if self.queues[item.queue].keeps_expired:
            item.attempt -= 1  # how often it was delivered
            self.bury(item, "expired")
        else:
            item.place = "expired"

    def fail(self, item: Item, reason: str = "max_deliveries") -> None:
        """Count a failed delivery."""
        queue = self.queues[item.queue]
        if item.attempt >= queue.max_deliveries:
            self.bury(item, reason)
        else:
            item.attempt += 1
            self.again(item, queue.backoff)

    def again(self, item: Item, after: int) -> None:
        """Deliver again later; a key waits for it, unless its order is given up."""
        if item.in_lane and self.queues[item.queue].on_failure != "skip":
            item.place = "ready"
            self._lane(item).waits_until = self.now + after
        else:
            item.in_lane = False
            item.place, item.due, item.order = "scheduled", self.now + after, next(self.orders)

    def release(self, item: Item) -> None:
        """Give back as if it had not been taken: at its old place."""
        item.place = "ready"

    def bury(self, item: Item, reason: str) -> None:
        """Make a dead letter, which may set its key aside."""
        item.place, item.reason = "dead", reason
        item.deaths += 1
        if item.in_lane and self.queues[item.queue].on_failure == "park":
            self._lane(item).is_parked = True

    # What happens by itself.

    def tidy(self) -> None:
        """Count what was held too long, and make ready what is due."""
        lapsed = [i for i in self.items.values() if i.place == "leased" and i.until <= self.now]
        for item in sorted(lapsed, key=lambda item: item.until):
            self.fail(item, "timeout")
        due = [i for i in self.items.values() if i.place == "scheduled" and i.due <= self.now]
        for _, together in groupby(sorted(due, key=when), when):
            self.ready_now(together)

    # What operators do.

    def ready_now(self, items: Iterable[Item]) -> None:
        """Make ready; what becomes due together has no order among itself."""
        order = next(self.orders)
        for item in items:
            item.place, item.order = "ready", order

    def redrive(self, item: Item) -> None:
        """Deliver a dead letter from the start: with a place in its key before those behind it."""
        item.place, item.attempt, item.expires = "ready", 1, NEVER
        if item.key is None:
            item.order = next(self.orders)
        elif item.in_lane:
            self._lane(item).is_parked = False
        else:
            item.in_lane, item.order = True, next(self.orders)

    def purge(self, queue: str) -> int:
        gone = [*self._at(queue, "ready"), *self._at(queue, "scheduled")]
        for item in gone:
            item.place = "purged"
        for (name, _), lane in self.lanes.items():
            if name == queue:
                lane.waits_until = 0  # the retry that the key waited for is gone
        return len(gone)

    def cancel(self, message_id: int) -> int:
        gone = [i for i in self.at("scheduled") if i.message_id == message_id]
        for item in gone:
            item.place = "cancelled"
        return len(gone)

    def release_key(self, queue: str, key: str) -> None:
        self.lanes.pop((queue, key), None)

    def at(self, place: str) -> list[Item]:
        """Return all that is at a place, in the order in which it was sent."""
        return [item for item in self.items.values() if item.place == place]

    def _at(self, queue: str, place: str) -> list[Item]:
        return [item for item in self.at(place) if item.queue == queue]

    def _lane(self, item: Item) -> Lane:
        return self.lanes.setdefault((item.queue, str(item.key)), Lane())

    def _is_open(self, item: Item) -> bool:
        lane = self._lane(item)
        return not lane.is_parked and lane.waits_until <= self.now
