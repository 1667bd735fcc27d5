"""The tables of the app come and go by migrations, in steps."""

import pytest


@pytest.mark.parametrize("step", ["zero", "0001"])
def test_the_app_can_be_migrated_back_and_forth(database, step):
    queues = database.value("SELECT count(*) FROM messaging_queue")
    # The tables of `trials` are no part of it, and `orders` has none that needs these.
    back = database.manage("migrate", "messaging", step, "--verbosity=0")
    assert back.returncode == 0, back.stderr
    refused = database.manage("runworker", "--drain")
    assert refused.returncode == 1
    assert "Run migrate first" in refused.stderr
    forth = database.manage("migrate", "--verbosity=0")
    assert forth.returncode == 0, forth.stderr
    assert database.value("SELECT count(*) FROM messaging_queue") == queues > 0
