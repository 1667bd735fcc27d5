"""Real orders go through the shop: every one processed, to the cent and in order."""

from machinery import wait_until
from replaying import PATIENCE, check_messages, check_order, check_shop, replay


def test_every_real_order_is_processed_once_to_the_cent_and_in_its_customers_order(
    database, start_worker, tmp_path
):
    worker = start_worker("--processes=2", ready=2)
    with replay(database, tmp_path / "replay.log") as replaying:
        pass
    assert replaying.returncode == 0
    wait_until(lambda: not database.waiting, PATIENCE, report=lambda: worker.output)
    check_shop(database)
    check_order(database)
    check_messages(database)
    assert "Worker process died" not in worker.output
