"""Real orders go through the shop: every one processed, to the cent."""

from machinery import wait_until
from replaying import PATIENCE, check_messages, check_shop, replay


def test_every_real_order_is_processed_once_to_the_cent(database, start_worker, tmp_path):
    worker = start_worker("--processes=2", ready=2)
    with replay(database, tmp_path / "replay.log") as replaying:
        pass
    assert replaying.returncode == 0
    wait_until(lambda: not database.waiting, PATIENCE, report=lambda: worker.output)
    check_shop(database)
    check_messages(database)
    assert "Worker process died" not in worker.output
