"""Transact: claim, handle and settle messages of one queue, in one transaction."""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..acknowledgement import WORKER_DIED, outcome_of, settle
from ..batching import handle_batch
from ..delivery import deliver
from ..handling import Handled, TransactionLost, handle, is_conflict
from ..limits import PLACE_WAIT, Limits
from ..messages import Message, Outcome, Settlement
from ..store import deadletters
from ..store.connection import connection_for, run
from . import losses
from .company import Company
from .slots import Slots
from .tally import Tally
from .work import Work

# How soon to look again when all that was found is what processes died of, seconds.
HELD_WAIT = 0.05


class Transactor:
    """What one thread does with its messages; ``pause`` waits, unless there is news."""

    def __init__(
        self,
        *,
        using: str | None,
        name: str,
        slots: Slots,
        slot: int,
        tally: Tally,
        company: Company | None,
        thorough: bool,
        go_on: Callable[[], bool],
        pause: Callable[[float], object],
    ) -> None:
        self._using = using
        self._name = name
        self._slots = slots
        self._slot = slot
        self._tally = tally
        self._company = company
        self._thorough = thorough
        self._go_on = go_on
        self._pause = pause
        # Whether the last transaction has found anything, though it may have come to nothing.
        self.claimed = False

    def transact(self, work: Work, limits: Limits | None, limit: int) -> list[Outcome]:
        """Claim, handle and settle up to ``limit`` messages; return what they came to."""
        self.claimed = False
        # Others wait for a suspect until its transaction has ended.
        with ExitStack() as company:
            return self._transact(work, limits, limit, company)

    def _transact(
        self, work: Work, limits: Limits | None, limit: int, company: ExitStack
    ) -> list[Outcome]:
        connection = connection_for(self._using)
        queue = work.consumer.queue
        is_batch = work.consumer.batch is not None
        messages: Sequence[Message] = ()
        handled: list[Handled] = []
        outcomes: list[Outcome] = []
        waits: dict[int, float] = {}
        lost: set[int] = set()
        try:
            with transaction.atomic(using=connection.alias):
                if not work.consumer.durable:
                    run(connection, "SET LOCAL synchronous_commit = off")
                if limits is not None:
                    policy = work.source.policy
                    limit = limits.enter(connection, policy, limit, at_once=is_batch)
                    if not limit:
                        work.close(PLACE_WAIT * random.uniform(0.5, 1))  # noqa: S311
                        return []
                messages, outcomes = deliver(
                    work.source, limit, thorough=self._thorough, one_a_lane=is_batch
                )
                if not messages and not outcomes:
                    self.claimed = work.source.tidied
                    return []
                self.claimed = True
                chosen = messages
                if limits is not None:
                    chosen, waits = limits.choose(connection, work.source.policy, messages)
                # After the claim: whoever held one of these and died has said so before.
                lost = self._slots.running_elsewhere(self._slot)
                free = [m for m in chosen if m.delivery.id not in lost]
                if self._company is not None and free:
                    company.enter_context(self._join(self._company, free[0]))
                self._tally.started(queue, len(messages))
                try:
                    handled = self._handle(work, free, connection) if free else []
                finally:
                    self._tally.finished(queue, len(messages))
                outcomes += [
                    outcome_of(work.source.policy, each.message, each.error, each.duration)
                    for each in handled
                ]
                done = {id(each.message) for each in handled}
                rest = [m.delivery for m in messages if id(m) not in done]
                for each in outcomes:  # a key that is set aside waits for nothing
                    if each.settlement is Settlement.DEAD and each.delivered.lane_id:
                        waits.pop(each.delivered.lane_id, None)
                settle(
                    work.source,
                    outcomes,
                    self._name,
                    unhandled=rest,
                    waits=waits,
                    avoided=lost,
                )
        except DatabaseError as error:
            work.source.rewind()
            work.pace.isolate(len(messages))
            if not handled or not losses.is_answer(error):
                raise
            if len(handled) > 1:  # each runs alone next, so that the one at fault shows
                return []
            raise TransactionLost(
                handled[0].message, error, guilty=not is_conflict(error)
            ) from error
        except TransactionLost as end:
            work.source.rewind()
            work.pace.isolate(len(messages))
            if end.ended:
                losses.restore(work, end, messages, outcomes, self._name, connection)
            raise
        if not outcomes and lost:
            # Not in the transaction: the supervisor wants the row that it had locked.
            self._pause(HELD_WAIT)
        work.pace.learn(handled)
        return outcomes

    def _join(self, company: Company, first: Message) -> AbstractContextManager[None]:
        """Handle beside the process's other threads, unless the message may kill them all."""
        if first.attempt > 1:
            connection = connection_for(self._using)
            error = deadletters.last_error(connection, first.id, first.delivery.queue_id)
            if error == WORKER_DIED:
                return company.alone()
        return company.beside_others()

    def _handle(
        self, work: Work, messages: Sequence[Message], connection: BaseDatabaseWrapper
    ) -> list[Handled]:
        consumer = work.consumer
        hard = consumer.hard_timeout

        def starting(message: Message) -> None:
            deadline = 0.0 if hard is None else time.monotonic() + hard
            self._slots.start(self._slot, message.delivery, deadline)

        together = self._together(messages)
        if consumer.batch is None:
            return handle(
                consumer,
                together,
                connection,
                starting=starting,
                go_on=self._go_on,
            )
        handled = handle_batch(consumer, together, connection, starting=starting)
        if len(handled) < len(together):
            work.pace.narrow(len(together))
        return handled

    def _together(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return the first messages that may share a transaction.

        One that failed before runs alone, so that whatever failed it cannot take others with it.
        """
        for position, message in enumerate(messages):
            if message.attempt > 1:
                return messages[: max(1, position)]
        return messages
