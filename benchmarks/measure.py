"""Measure one workload at a time; each function returns messages a second."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from django.db import connections, transaction

from messaging import send, send_many

BODY = {
    "order_id": 48213,
    "customer_id": 2111,
    "total": "29.33",
    "currency": "USD",
    "lines": [{"sku": "CD-0091", "quantity": 2}, {"sku": "CD-0107", "quantity": 1}],
    "note": "x" * 40,
}
QUEUE = "bench-nothing"
DEADLINE = 60.0


@contextmanager
def plain(using: str = "default") -> Iterator[psycopg.Connection]:
    """Give a psycopg connection to the same database, without Django."""
    params = connections[using].get_connection_params() | {"prepare_threshold": 5}
    for name in ("cursor_factory", "context"):
        params.pop(name, None)
    with psycopg.connect(**params | {"autocommit": True}) as raw:
        yield raw


@contextmanager
def apart(raw: psycopg.Connection) -> Iterator[None]:
    """Keep this thread on one core, and the server process of a connection on another one.

    Who writes one by one waits for the server most of the time. Where the scheduler puts the two
    changes from round to round, and with it their pace by a fifth, whoever's statement it is.
    """
    cores = sorted(os.sched_getaffinity(0))
    server = raw.info.backend_pid
    _place({0: cores[:1], server: cores[-1:]})
    try:
        yield
    finally:
        _place({0: cores, server: cores})


def _place(processes: dict[int, list[int]]) -> None:
    # Where the server is another user's, or another machine's, its place is its own affair.
    for process, cores in processes.items():
        with suppress(PermissionError, ProcessLookupError):
            os.sched_setaffinity(process, cores)


INSERT = "INSERT INTO bench_raw (queue_id, body) VALUES (%s, %s::jsonb)"


def raw_insert(count: int) -> float:
    """Insert rows one by one with psycopg, each a commit of its own."""
    text = json.dumps(BODY)
    with plain() as raw, apart(raw):
        raw.execute("TRUNCATE bench_raw")
        started = time.perf_counter()
        for _ in range(count):
            raw.execute(INSERT, (1, text), prepare=True)
        return count / (time.perf_counter() - started)


def raw_insert_in_transactions(count: int) -> float:
    """Insert rows one by one with psycopg, each between BEGIN and COMMIT."""
    text = json.dumps(BODY)
    with plain() as raw, apart(raw):
        raw.execute("TRUNCATE bench_raw")
        started = time.perf_counter()
        for _ in range(count):
            with raw.transaction():
                raw.execute(INSERT, (1, text), prepare=True)
        return count / (time.perf_counter() - started)


def send_one_by_one(count: int) -> float:
    """Send messages one by one through the public API, each a commit of its own."""
    with apart(_ours()):
        started = time.perf_counter()
        for _ in range(count):
            send(QUEUE, BODY)
        rate = count / (time.perf_counter() - started)
    empty()
    return rate


def send_in_transactions(count: int) -> float:
    """Send messages one by one through the public API, each in an `atomic()` block."""
    with apart(_ours()):
        started = time.perf_counter()
        for _ in range(count):
            with transaction.atomic():
                send(QUEUE, BODY)
        rate = count / (time.perf_counter() - started)
    empty()
    return rate


def _ours() -> psycopg.Connection:
    """Return the connection on which Django sends."""
    connections["default"].ensure_connection()
    return connections["default"].connection


def raw_delete(count: int) -> float:
    """Take preloaded rows in batches of 100 with DELETE and SKIP LOCKED, and decode them."""
    text = json.dumps(BODY)
    take = """
        DELETE FROM bench_raw WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM bench_raw ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED))
        RETURNING id, body::text
    """
    with plain() as raw:
        raw.execute("TRUNCATE bench_raw")
        raw.execute(
            "INSERT INTO bench_raw (queue_id, body)"
            " SELECT 1, %s::jsonb FROM generate_series(1, %s)",
            (text, count),
        )
        settle_down(raw)
        started = time.perf_counter()
        taken = 0
        while rows := raw.execute(take, prepare=True).fetchall():
            for _, body in rows:
                json.loads(body)
            taken += len(rows)
        rate = taken / (time.perf_counter() - started)
    assert taken == count
    return rate


def one_worker(count: int) -> float:
    """Work off preloaded messages with `runworker --processes 1` and a handler that does nothing.

    The clock starts when the paused queue is resumed and stops when nothing is left.
    """
    from messaging import control

    empty()
    control.pause(QUEUE)
    for start in range(0, count, 1_000):
        send_many(QUEUE, [BODY] * min(1_000, count - start))
    worker = subprocess.Popen(
        [sys.executable, "manage.py", "runworker", QUEUE, "--processes", "1"],
        env=os.environ,
        stdout=subprocess.DEVNULL,
    )
    try:
        with plain() as raw:
            settle_down(raw)
            # A look-up of the last one: a search for any would walk over all that are gone.
            last = "(queue_id, priority, id) = ({}, {}, {})".format(
                *raw.execute(
                    "SELECT queue_id, priority, id FROM messaging_delivery ORDER BY id DESC LIMIT 1"
                ).fetchone()
            )
            until(raw, "SELECT count(*) = 1 FROM messaging_worker")
            started = time.perf_counter()
            control.resume(QUEUE)
            until(raw, f"SELECT NOT EXISTS (SELECT FROM messaging_delivery WHERE {last})")
            rate = count / (time.perf_counter() - started)
    finally:
        worker.terminate()
        worker.wait()
        control.resume(QUEUE)
    return rate


def until(raw: psycopg.Connection, condition: str) -> None:
    """Wait until a query says so."""
    deadline = time.monotonic() + DEADLINE
    while not raw.execute(condition).fetchone()[0]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not within {DEADLINE:.0f} s: {condition}")
        time.sleep(0.002)


def settle_down(raw: psycopg.Connection) -> None:
    """Leave no vacuum, statistics or dirty pages of the preparation to the measurement."""
    raw.execute("VACUUM ANALYZE")
    raw.execute("CHECKPOINT")


def empty(using: str = "default") -> None:
    """Remove all messages."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "TRUNCATE messaging_message, messaging_delivery, messaging_scheduled, messaging_lane,"
            " messaging_laneentry, messaging_attempt, messaging_worker"
        )
