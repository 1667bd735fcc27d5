"""The company: threads handle side by side, unless one has to be alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from messaging.worker.company import Company

PATIENCE = 10  # seconds


@pytest.fixture
def company():
    return Company()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as threads:
        yield threads


def test_threads_handle_side_by_side(company, threads):
    met = threading.Barrier(4)

    def handle():
        with company.beside_others():
            met.wait(PATIENCE)

    for handling in [threads.submit(handle) for _ in range(4)]:
        handling.result()


def test_one_that_is_alone_waits_for_the_others_and_keeps_them_out(company, threads):
    """Each notes who is inside; whoever is alone must find nobody, however they come."""
    inside, seen = [], []
    lock = threading.Lock()

    def handle(name, join):
        with join():
            with lock:
                inside.append(name)
            time.sleep(0.0005)  # gives others the chance to come in
            seen.append((name, list(inside)))
            with lock:
                inside.remove(name)

    work = []
    for number in range(200):
        work.append(threads.submit(handle, "beside", company.beside_others))
        if number % 4 == 0:
            work.append(threads.submit(handle, "alone", company.alone))
    for each in work:
        each.result(PATIENCE)
    assert [names for name, names in seen if name == "alone"] == [["alone"]] * 50


def test_an_error_inside_lets_the_others_go_on(company, threads):
    for join in (company.beside_others, company.alone):
        with pytest.raises(ValueError), join():
            raise ValueError
    with company.alone():
        pass
    threads.submit(lambda: company.beside_others().__enter__()).result(PATIENCE)
