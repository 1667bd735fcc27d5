"""A worker ends when it was asked to, with the exit code that says why."""

from machinery import Database


class TestDrain:
    def test_ends_when_nothing_is_ready(self, database, send_all, start_worker):
        sent = send_all("alone", [{}] * 50)
        later = send_all("alone", [{}], delay=3600)
        worker = start_worker("--drain", "--processes=2")
        assert worker.wait() == 0, worker.output
        assert database.effects() == dict.fromkeys(sent, 1)
        assert database.rows("SELECT message_id FROM messaging_scheduled") == [(later[0],)]

    def test_ends_at_once_when_there_is_nothing(self, database, start_worker):
        assert start_worker("--drain").wait() == 0

    def test_goes_on_after_a_process_has_died(self, database, send_all, start_worker):
        (poison,) = send_all("alone", [{"end": "exit well"}])
        sent = send_all("alone", [{}] * 50)
        worker = start_worker("--drain", "--processes=1")
        assert worker.wait() == 0, worker.output
        assert database.effects() == dict.fromkeys(sent, 1)
        assert database.attempts(poison)[0] == 1
        # Its next delivery may have become due in the last moment.
        assert database.waiting + len(database.dead()) == 1


class TestMaxMessages:
    def test_handles_exactly_so_many(self, database, send_all, start_worker):
        send_all("alone", [{}] * 100)
        worker = start_worker("--max-messages=37", "--processes=2")
        assert worker.wait() == 0, worker.output
        assert len(database.effects()) == 37
        assert database.ready == 63

    def test_waits_for_those_still_to_come(self, database, send_all, start_worker):
        send_all("alone", [{}] * 3)
        worker = start_worker("--max-messages=5", "--processes=2", ready=2)
        send_all("alone", [{}] * 3)
        assert worker.wait() == 0, worker.output
        assert len(database.effects()) == 5
        assert database.ready == 1

    def test_is_not_used_up_by_what_a_killed_process_had_reserved(
        self, database, send_all, start_worker
    ):
        send_all("together", [{}] * 3 + [{"end": "killed"}] + [{}] * 40)
        worker = start_worker("--max-messages=30", "--processes=1")
        assert worker.wait() == 0, worker.output
        # The death was a delivery too.
        assert len(database.effects()) + 1 == 30
        assert database.waiting == 44 - 29


class TestAStartThatCannotSucceed:
    def test_names_the_queue_and_what_was_meant(self, database):
        done = database.manage("runworker", "alnoe")
        assert done.returncode == 2
        assert "Unknown queue 'alnoe'. Did you mean 'alone'?" in done.stderr
        assert "Traceback" not in done.stderr

    def test_asks_for_migrations(self, server):
        server.execute("CREATE DATABASE empty")
        done = Database(server, "empty").manage("runworker")
        assert done.returncode == 1
        assert "Run migrate first" in done.stderr
        assert "Traceback" not in done.stderr

    def test_says_that_the_database_does_not_answer(self, server):
        done = Database(server, "nowhere").manage("runworker")
        assert done.returncode == 1
        assert 'database "nowhere" does not exist' in done.stderr
        assert "Traceback" not in done.stderr


def test_four_processes_handle_two_thousand_messages_once_each(database, send_all, start_worker):
    sent = send_all("alone", [{}] * 1000) + send_all("together", [{}] * 1000)
    worker = start_worker("--drain", "--processes=4")
    assert worker.wait() == 0, worker.output
    assert database.effects() == dict.fromkeys(sent, 1)
    assert database.waiting == 0
    assert database.value("SELECT count(DISTINCT worker) FROM trials_effect") > 1
