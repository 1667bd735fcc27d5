"""Present: turn figures into what the templates of the overview show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.utils.safestring import SafeString

from .. import metrics
from ..metrics import (
    Attention,
    DeadLetterFigures,
    Flow,
    Overview,
    QueueFigures,
    Trouble,
    WorkerFigures,
)
from . import curves
from .words import count, counted, long_span, percent, rate, span

ATTENTION = 8
WORKERS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One figure of the strip; ``note`` says more about it, ``kind`` colours its curve."""

    kind: str
    label: str
    value: str
    unit: str = ""
    note: str = ""
    shape: SafeString | str = ""
    is_alarm: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """The chart of the last five minutes: its curves, its axis, and the same as rows."""

    chart: SafeString
    axis: tuple[str, ...]
    rows: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueLine:
    """One row of the table of queues; ``state`` colours it."""

    figures: QueueFigures
    state: str
    badge: str
    ready: str
    scheduled: str
    dead: str
    has_dead: bool
    oldest: str
    is_old: bool
    in_rate: str
    out_rate: str
    failed: str
    failed_state: str
    curve: SafeString
    meter: SafeString
    consumers: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """What needs attention, in one sentence and a second that helps; ``action`` is offered."""

    level: str
    name: str
    sentence: str
    help: str
    command: str = ""
    action: str = ""
    queue: QueueFigures | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterLine:
    """One dead letter; ``label`` is its reason in words."""

    figures: DeadLetterFigures
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerLine:
    """One row of the table of workers."""

    figures: WorkerFigures
    state: str
    queues: str
    seen: str
    uptime: str
    handled: str
    failed: str
    meter: SafeString


@dataclass(frozen=True, kw_only=True, slots=True)
class Presented:
    """The overview, ready for its templates."""

    figures: Overview
    summary: str
    tiles: tuple[Tile, ...]
    throughput: Throughput
    queues: tuple[QueueLine, ...]
    queues_note: str
    notices: tuple[Notice, ...]
    more_notices: int
    letters: tuple[LetterLine, ...]
    workers: tuple[WorkerLine, ...]
    workers_note: str


def present(overview: Overview) -> Presented:
    """Return the overview as its page shows it."""
    shown = [queue for queue in overview.queues if _is_shown(queue)]
    live = [worker for worker in overview.workers if worker.is_live]
    notices = tuple(_notice(each, overview) for each in overview.attention)
    return Presented(
        figures=overview,
        summary=_summary(len(notices), overview.number),
        tiles=tuple(_tiles(overview)),
        throughput=_throughput(overview.totals.flow),
        queues=tuple(_queue_line(queue) for queue in shown),
        queues_note=_queues_note(overview, len(shown)),
        notices=notices[:ATTENTION],
        more_notices=max(0, len(notices) - ATTENTION),
        letters=tuple(
            LetterLine(figures=letter, label=letter.reason.replace("_", " "))
            for letter in overview.dead_letters
        ),
        workers=tuple(_worker_line(worker, overview) for worker in overview.workers[:WORKERS]),
        workers_note=_workers_note(overview.workers, live),
    )


def _summary(notices: int, queues: int) -> str:
    if not queues:
        return "No queues yet"
    state = f"{counted(notices, 'thing needs', 'things need')} attention" if notices else "All well"
    return f"{counted(queues, 'queue')} · {state}"


def _is_shown(queue: QueueFigures) -> bool:
    """Leave out the dead-letter queues that keep nothing: their origins say the same."""
    return not queue.is_idle_dead_letter_queue or (queue.held is not None and queue.held.number > 0)


def _queues_note(overview: Overview, shown: int) -> str:
    if overview.number > len(overview.queues):
        return f"the {len(overview.queues)} busiest of {overview.number:,}"
    hidden = overview.number - shown
    if hidden:
        return f"{shown}, and {counted(hidden, 'empty dead-letter queue')} not shown"
    return f"{shown}"


def _workers_note(workers: Sequence[WorkerFigures], live: Sequence[WorkerFigures]) -> str:
    silent = len(workers) - len(live)
    return f"{len(live)} live" + (f" · {silent} silent" if silent else "")


def _unhandled(flow: Flow) -> str:
    """Say what has left the queues without having been handled."""
    counts = {"expired": flow.newly_expired, "dropped": flow.newly_dropped}
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return f"{told} in 5 min" if told else ""


def _tiles(overview: Overview) -> Iterator[Tile]:
    totals, flow = overview.totals, overview.totals.flow
    yield Tile(
        kind="in",
        label="In",
        value=rate(flow.in_rate),
        unit="/s",
        shape=curves.sparkline(_curve_label("In", flow.published), flow.published),
    )
    yield Tile(
        kind="out",
        label="Out",
        value=rate(flow.out_rate),
        unit="/s",
        note=_unhandled(flow),
        shape=curves.sparkline(_curve_label("Out", flow.acknowledged), flow.acknowledged),
    )
    yield Tile(
        kind="failed",
        label="Failed",
        value=rate(flow.failed_rate),
        unit="/s",
        shape=curves.sparkline(_curve_label("Failed", flow.failed), flow.failed),
    )
    yield Tile(
        kind="ready", label="Ready", value=count(totals.ready), note=_most_ready(overview.queues)
    )
    busy = min(1.0, flow.busy / totals.threads) if totals.threads else 0.0
    yield Tile(
        kind="flight",
        label="In flight",
        value=f"{totals.in_flight:,}",
        note=f"{percent(busy)} of {counted(totals.threads, 'thread')} busy"
        if totals.threads
        else "no worker",
        shape=curves.meter("Threads busy", busy) if totals.threads else "",
    )
    yield Tile(
        kind="scheduled",
        label="Scheduled",
        value=count(totals.scheduled),
        note=_next_due(overview.next_due),
    )
    yield Tile(
        kind="dead",
        label="Dead letters",
        value=count(totals.dead),
        note=f"+{flow.newly_dead:,} in 5 min" if flow.newly_dead else "none in 5 min",
        shape=curves.sparkline(_curve_label("Dead", flow.dead), flow.dead)
        if flow.newly_dead
        else "",
        is_alarm=flow.newly_dead > 0,
    )
    value, _, unit = span(totals.oldest_age).partition(" ")
    yield Tile(
        kind="age",
        label="Oldest ready",
        value=value,
        unit=unit,
        note=f"in {totals.oldest_queue}" if totals.oldest_queue else "nothing waits",
        is_alarm=(totals.oldest_age or 0) > metrics.OLD,
    )


def _curve_label(name: str, series: Sequence[int]) -> str:
    return f"{name} over five minutes, at most {rate(max(series) / metrics.BUCKET)} a second"


def _most_ready(queues: Sequence[QueueFigures]) -> str:
    most = max(queues, key=lambda queue: queue.ready.number if queue.ready else 0, default=None)
    if most is None or most.ready is None or not most.ready.number:
        return "nothing waits"
    return f"{count(most.ready)} in {most.name}"


def _next_due(seconds: float | None) -> str:
    if seconds is None:
        return "nothing to come"
    if seconds < -metrics.LIVE:
        return f"due for {span(-seconds)}"
    if seconds < 0.1:
        return "due now"
    return f"next in {span(seconds)}"


def _throughput(flow: Flow) -> Throughput:
    rates = {
        name: [number / metrics.BUCKET for number in series]
        for name, series in (
            ("in", flow.published),
            ("out", flow.acknowledged),
            ("failed", flow.failed),
        )
    }
    top = curves.round_top(max(map(max, rates.values())))
    moments = [
        f"{metrics.SERIES - number * metrics.BUCKET} s ago" for number in range(metrics.BUCKETS)
    ]
    titles = [
        f"{moment}: in {rate(arrived)}/s, out {rate(left)}/s, failed {rate(failed)}/s"
        for moment, arrived, left, failed in zip(moments, *rates.values(), strict=True)
    ]
    step = 30 // metrics.BUCKET
    rows = tuple(
        (moments[start], *(rate(sum(r[start : start + step]) / step) for r in rates.values()))
        for start in range(0, metrics.BUCKETS, step)
    )
    return Throughput(
        chart=curves.chart(
            f"Messages in, out and failed over five minutes, at most {rate(top)} a second",
            list(rates.items()),
            titles,
            top,
        ),
        axis=tuple(f"{top * quarter / 4:,.0f}" for quarter in (4, 3, 2, 1, 0)),
        rows=rows,  # type: ignore[arg-type]
    )


def _queue_line(queue: QueueFigures) -> QueueLine:
    flow = queue.flow
    tried = flow.out_rate + flow.failed_rate
    share = flow.failed_rate / tried if tried else 0.0
    waits = queue.ready is not None and queue.ready.number > 0
    state, badge = "", ""
    if queue.is_paused:
        state, badge = "paused", "paused"
    elif waits and not queue.consumers:
        state, badge = "danger", "no consumer"
    elif queue.is_disabled:
        state, badge = "paused", "disabled"
    elif queue.holds_dead_letters:
        badge = "dead letters"
    dead = queue.held if queue.holds_dead_letters else queue.dead
    pairs = [
        [a + b for a, b in zip(series[::2], series[1::2], strict=True)]
        for series in (flow.published, flow.acknowledged)
    ]
    return QueueLine(
        figures=queue,
        state=state,
        badge=badge,
        ready=count(queue.ready),
        scheduled=count(queue.scheduled),
        dead=count(dead),
        has_dead=dead is not None and dead.number > 0,
        oldest=span(queue.oldest_age),
        is_old=(queue.oldest_age or 0) > metrics.OLD,
        in_rate=rate(flow.in_rate),
        out_rate=rate(flow.out_rate),
        failed=percent(share) if tried else "–",
        failed_state="bad" if share >= 0.1 else "warn" if share >= 0.01 else "",
        curve=curves.sparkline(_curve_label("In and out", flow.published), *pairs),
        meter=curves.meter(f"{percent(queue.utilisation)} busy", queue.utilisation),
        consumers=f"{queue.consumers}" if queue.consumers else "none",
    )


def _notice(each: Attention, overview: Overview) -> Notice:
    queue = each.queue
    if queue is None:
        return Notice(
            level="bad",
            name="No worker is running",
            sentence="",
            help="Messages wait until somebody starts one:",
            command="python manage.py runworker",
        )
    ready = count(queue.ready)
    if each.trouble is Trouble.DEAD_LETTERS:
        return Notice(
            level="bad",
            name=queue.name,
            sentence=f"has {counted(queue.flow.newly_dead, 'new dead letter')}",
            help=f"within five minutes; {count(queue.dead)} in all",
            action="triage",
            queue=queue,
        )
    if each.trouble is Trouble.NO_CONSUMER:
        return Notice(
            level="bad",
            name=queue.name,
            sentence="has no consumer",
            help=f"{ready} ready; no live worker serves this queue",
            queue=queue,
        )
    if each.trouble is Trouble.PAUSED and queue.paused_at is not None:
        since = long_span((overview.at - queue.paused_at).total_seconds())
        why = f", “{queue.pause_reason}”" if queue.pause_reason else ""
        return Notice(
            level="warn",
            name=queue.name,
            sentence=f"paused for {since}",
            help=f"{f'by {queue.paused_by}' if queue.paused_by else 'by a command'}{why}; "
            f"{ready} ready",
            action="resume",
            queue=queue,
        )
    return Notice(
        level="warn",
        name=queue.name,
        sentence=f"is {span(queue.oldest_age)} behind",
        help=f"{ready} ready; in {rate(queue.flow.in_rate)}/s, out {rate(queue.flow.out_rate)}/s",
        queue=queue,
    )


def _worker_line(worker: WorkerFigures, overview: Overview) -> WorkerLine:
    share = worker.in_flight / worker.threads if worker.threads else 0.0
    return WorkerLine(
        figures=worker,
        state=worker.state if worker.is_live else "silent",
        queues=", ".join(worker.queues),
        seen=span(worker.silent),
        uptime=span((overview.at - worker.started_at).total_seconds()),
        handled=f"{worker.handled:,}",
        failed=f"{worker.failed:,}",
        meter=curves.meter(f"{worker.in_flight} in flight", share),
    )
