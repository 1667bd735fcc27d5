"""Catalogue: bugs that somebody could make here, and the test that must see each."""

from dataclasses import dataclass

TESTS = "tests/messaging"
STORIES = f"{TESTS}/interleavings/test_interleavings"
CLAIMS = f"{STORIES}.py::TestClaims::test_"
SENDING = f"{STORIES}.py::TestSending::test_"
OPERATIONS = f"{STORIES}.py::TestOperations::test_"
KEYS = f"{STORIES}_keys.py::TestKeys::test_"
LEASES = f"{STORIES}_leases.py::TestLeases::test_"
MODEL = f"{TESTS}/test_model.py::test_the_database_does_what_the_model_says[0]"


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One planted bug: ``edits`` of a file of the app, and the checker that has to turn red.

    ``sign`` is what the checker says then; ``times`` how often each text stands in the file.
    """

    name: str
    path: str
    edits: tuple[tuple[str, str], ...]
    checker: str
    sign: str
    times: int = 1
    quick: bool = False


MUTANTS = [
    Mutant(
        name="claims wait for each other",
        path="store/deliveries.py",
        edits=(
            (
                "ORDER BY id LIMIT %(limit)s\n            FOR UPDATE SKIP LOCKED",
                "ORDER BY id LIMIT %(limit)s\n            FOR UPDATE",
            ),
        ),
        checker=f"{CLAIMS}two_workers_never_take_the_same_message",
        sign="assert not schedule.waits",
        quick=True,
    ),
    Mutant(
        name="a claim locks nothing",
        path="store/deliveries.py",
        edits=(
            (
                "ORDER BY id LIMIT %(limit)s\n            FOR UPDATE SKIP LOCKED",
                "ORDER BY id LIMIT %(limit)s",
            ),
        ),
        checker=f"{CLAIMS}two_workers_never_take_the_same_message",
        sign="== [1, 1]",
    ),
    Mutant(
        name="a claim has its limit in an IN",
        path="store/deliveries.py",
        edits=(
            (
                "WHERE ctid = ANY (ARRAY(\n            SELECT ctid FROM messaging_delivery\n"
                "            WHERE queue_id = %(queue_id)s AND priority = %(priority)s",
                "WHERE ctid IN ((\n            SELECT ctid FROM messaging_delivery\n"
                "            WHERE queue_id = %(queue_id)s AND priority = %(priority)s",
            ),
        ),
        checker=f"{TESTS}/test_store_deliveries.py::TestClaiming::"
        "test_a_claim_takes_no_more_than_asked_however_it_is_planned",
        sign="== 10",
    ),
    Mutant(
        name="a claim commits before its handler has run",
        path="worker/transacting.py",
        edits=(
            (
                "                self.claimed = True\n",
                "                self.claimed = True\n"
                "                connection.connection.commit()\n",
            ),
        ),
        checker=f"{CLAIMS}what_is_rolled_back_is_there_for_the_others",
        sign="I1: lost",
        quick=True,
    ),
    Mutant(
        name="an acknowledgement does not look at the token",
        path="store/leases.py",
        edits=(
            (
                "unnest(%s::bigint[], %s::bigint[]) AS given (id, token) USING (id, token)",
                "unnest(%s::bigint[], %s::bigint[]) AS given (id, token) USING (id)",
            ),
        ),
        checker=f"{LEASES}who_held_a_message_before_cannot_settle_it",
        sign="I1: lost",
        quick=True,
    ),
    Mutant(
        name="an extension does not look at the token",
        path="store/leases.py",
        edits=(
            (
                "seconds)\n            USING (id, token)\n        ORDER BY lease.id",
                "seconds)\n            USING (id)\n        ORDER BY lease.id",
            ),
        ),
        checker=f"{LEASES}who_held_a_message_before_cannot_extend_it",
        sign="LeaseLost",
    ),
    Mutant(
        name="an acknowledgement does not look at the time",
        path="store/leases.py",
        edits=(
            (
                "    AND lease.leased_until > statement_timestamp()\n    RETURNING {columns}",
                "    RETURNING {columns}",
            ),
        ),
        checker=f"{TESTS}/test_settling.py::TestAcknowledging::"
        "test_an_acknowledgement_that_is_late_rolls_the_effects_back",
        sign="DID NOT RAISE",
    ),
    Mutant(
        name="acknowledging many takes all of them for done",
        path="leasing.py",
        edits=(
            (
                "    ended = {delivered.token for delivered in leases.end("
                "connection_for(using), held)}",
                "    leases.end(connection_for(using), held)\n"
                "    ended = {delivered.token for delivered in held}",
            ),
        ),
        checker=f"{LEASES}of_two_acknowledged_together_the_one_that_was_lost_takes_no_effect",
        sign="I1: in several places",
        quick=True,
    ),
    Mutant(
        name="only exceptions count as failed deliveries",
        path="acknowledgement.py",
        edits=(
            (
                "        failure=Failure(\n            error=LEASE_EXPIRED",
                "        counts=False,\n        failure=Failure(\n            error=LEASE_EXPIRED",
            ),
        ),
        checker=f"{LEASES}what_was_held_too_long_is_counted_once",
        sign="I4",
    ),
    Mutant(
        name="what is held too long never dies",
        path="acknowledgement.py",
        edits=(
            (
                'whose lease ended before it was settled."""\n'
                "    dead = delivered.attempt >= policy.max_deliveries",
                'whose lease ended before it was settled."""\n    dead = False',
            ),
        ),
        checker=f"{LEASES}what_was_held_too_long_for_the_last_time_is_dead_once",
        sign="I4",
        quick=True,
    ),
    Mutant(
        name="a message dies one delivery too late",
        path="acknowledgement.py",
        edits=(
            (
                "dead = counts and message.attempt >= policy.max_deliveries",
                "dead = counts and message.attempt > policy.max_deliveries",
            ),
        ),
        checker=f"{CLAIMS}a_message_that_fails_for_the_last_time_is_dead_once",
        sign="I4",
    ),
    Mutant(
        name="a key is only as exclusive as its leases",
        path="migrations/0004_lanes.py",
        edits=(("WHEN 0 THEN 1 ELSE 8", "WHEN 0 THEN 8 ELSE 8"),),
        times=3,
        checker=f"{KEYS}two_workers_on_one_key_never_run_at_once",
        sign="I5",
    ),
    Mutant(
        name="a retry lets its key go on",
        path="engines/postgresql.py",
        edits=(
            (
                "return delivered.lane_id is not None and delivered.lane_id not in skipping",
                "return False",
            ),
        ),
        checker=f"{KEYS}a_failing_message_is_retried_before_the_rest_of_its_key",
        sign="assert not ordered or",
        quick=True,
    ),
    Mutant(
        name="a lane ends though a publisher is at work on it",
        path="store/lanes.py",
        edits=(
            (
                "given.id = ANY (%(locked)s::bigint[]) AS is_locked",
                "true AS is_locked",
            ),
        ),
        checker=f"{KEYS}a_message_whose_commit_takes_long_is_not_left_behind",
        sign="I5",
    ),
    Mutant(
        name="deduplication looks first and inserts then",
        path="store/statements.py",
        edits=(
            (
                "        WHERE {window} IS DISTINCT FROM 0\n",
                "        WHERE {window} IS DISTINCT FROM 0 AND NOT EXISTS (\n"
                "            SELECT FROM messaging_deduplication AS d WHERE d.key = first.key)\n",
            ),
            ("        WHERE known.expires_at <= statement_timestamp()\n", ""),
        ),
        checker=f"{SENDING}one_of_two_senders_of_an_id_is_the_duplicate",
        sign="I10",
        quick=True,
    ),
    Mutant(
        name="a publication is stored outside its transaction",
        path="engines/postgresql.py",
        edits=(
            (
                "        connection = connection_for(using)\n        # The context",
                "        connection = connection_for(using)\n"
                "        if outgoing.is_topic:\n"
                "            connection = connection.copy()\n"
                "        # The context",
            ),
        ),
        checker=f"{SENDING}a_publication_that_is_rolled_back_reaches_nobody",
        sign="I2",
    ),
    Mutant(
        name="a dead letter is delivered all the same",
        path="engines/postgresql.py",
        edits=(
            (
                "            deadletters.bury(self._connection, dead)\n",
                "            deadletters.bury(self._connection, dead)\n"
                "            deliveries.put_back(self._connection, [o.delivered for o in dead])\n",
            ),
        ),
        checker=f"{CLAIMS}a_message_that_fails_for_the_last_time_is_dead_once",
        sign="I1: in several places",
    ),
    Mutant(
        name="a redrive leaves the dead letter",
        path="store/redriving.py",
        edits=(
            (
                "MATERIALIZED (\n        DELETE FROM messaging_deadletter AS dead\n",
                "MATERIALIZED (\n        SELECT * FROM messaging_deadletter AS dead\n",
            ),
            ("        ))\n        RETURNING *\n", "        ))\n"),
        ),
        checker=f"{OPERATIONS}a_dead_letter_is_redriven_once_however_often",
        sign="I1: in several places",
        quick=True,
    ),
    Mutant(
        name="a message expires a little early",
        path="delivery.py",
        edits=(
            ("time.monotonic() + row.seconds_left", "time.monotonic() + row.seconds_left - 700"),
        ),
        checker=MODEL,
        sign="lost: Item",
    ),
    Mutant(
        name="a message is delivered after it has expired",
        path="leasing.py",
        edits=(
            ("m.deadline is not None and now >= m.deadline", "False"),
            ("m.deadline is None or now < m.deadline", "True"),
        ),
        checker=MODEL,
        sign="must not be delivered",
    ),
    Mutant(
        name="what nobody ran is given back as one more attempt",
        path="store/deliveries.py",
        edits=(("[d.attempt for d in delivered]", "[d.attempt + 1 for d in delivered]"),),
        checker=f"{TESTS}/test_worker_runner.py::TestStopping::"
        "test_in_the_middle_of_a_batch_gives_the_rest_back_as_it_was",
        sign="assert",
        quick=True,
    ),
    Mutant(
        name="a wake-up comes before the commit",
        path="engines/postgresql.py",
        edits=(
            (
                "            transaction.on_commit(hook, using=connection.alias, robust=True)\n",
                "            hook()\n",
            ),
        ),
        checker="tests/engines/test_wakeup.py::TestAnnouncing::"
        "test_nothing_is_announced_before_the_commit",
        sign="assert",
    ),
    Mutant(
        name="a commit that is cut off passes for done",
        path="store/commits.py",
        edits=(("            raise PublishUncertain(ids) from error\n", "            return\n"),),
        checker=f"{TESTS}/test_confirming.py::TestCommits::"
        "test_a_commit_that_is_cut_off_names_the_messages_and_asking_tells",
        sign="the connection is lost",
    ),
    Mutant(
        name="sending again makes a new id",
        path="store/identities.py",
        edits=(
            (
                "return [outgoing.message_id], [digest",
                "return [outgoing.message_id + __import__('os').urandom(4).hex()], [digest",
            ),
        ),
        checker=f"{TESTS}/test_publishing_identities.py::TestOwnIds::"
        "test_a_second_call_gets_the_first_ones_id",
        sign="assert",
    ),
    Mutant(
        name="retention takes what is ready",
        path="store/retention.py",
        edits=(
            (
                "FROM messaging_delivery AS waiting WHERE waiting.message_id = old.id)",
                "FROM messaging_delivery AS waiting WHERE false)",
            ),
        ),
        checker=f"{OPERATIONS}retention_keeps_the_log_of_what_waits_or_comes_back",
        sign="('true',)",
    ),
    Mutant(
        name="a redrive does not hold retention up",
        path="store/redriving.py",
        edits=(("        keep_log(connection)\n", ""),),
        checker=f"{OPERATIONS}retention_keeps_the_log_of_what_waits_or_comes_back",
        sign="('true',)",
    ),
    Mutant(
        name="a publication reaches its first subscriber only",
        path="store/publishing.py",
        edits=(
            (
                "        ORDER BY binding.subscription_id\n",
                "        ORDER BY binding.subscription_id LIMIT 1\n",
            ),
        ),
        checker=f"{SENDING}a_publication_reaches_each_subscriber_of_its_moment_once",
        sign="I8",
    ),
    Mutant(
        name="every lease has the same token",
        path="store/leases.py",
        edits=(("nextval('messaging_lease_token_seq')", "1"),),
        checker=f"{LEASES}who_held_a_message_before_cannot_extend_it",
        sign="I6: tokens of",
    ),
    Mutant(
        name="a dead letter forgets its last error",
        path="store/deadletters.py",
        edits=(("dead.description, dead.error, ", "dead.description, '', "),),
        checker=f"{CLAIMS}a_message_that_fails_for_the_last_time_is_dead_once",
        sign="I7",
    ),
    Mutant(
        name="a webhook takes a redirection for done",
        path="webhooks/sending.py",
        edits=(("200 <= self.status < 300", "200 <= self.status < 400"),),
        checker=f"{TESTS}/webhooks/test_webhooks_delivering.py::TestAnswers::"
        "test_a_redirection_is_a_failure_and_not_followed[307]",
        sign="== {'scheduled': 1}",
    ),
]
