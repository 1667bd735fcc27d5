"""List the schedules, or run, pause and resume some of them."""

from argparse import ArgumentParser
from typing import Any

from messaging import control
from messaging.exceptions import MessagingError
from messaging.management.operators import EXIT_CODES, OperatorCommand
from messaging.models import Schedule

HEADINGS = ("schedule", "to", "when", "next run", "last run", "state")


class Command(OperatorCommand):
    help = (
        "List the schedules; or send the messages of those named now, or pause and resume them. "
        f"{EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = ["list", "run", "pause", "resume"]
        parser.add_argument("verb", nargs="?", choices=verbs, default="list")
        parser.add_argument("name", nargs="*", help="The schedules.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        verb, names = options["verb"], options["name"]
        if verb == "list":
            return self._list(names)
        if not names:
            raise self.refusal(f"Name the schedules to {verb}.")
        # All names first, so that a wrong one leaves every schedule as it is.
        found = [control.find_schedule(name, self.using) for name in names]
        lines, facts = [], []
        for schedule in found:
            words, fact = self._act(verb, schedule)
            lines.append(f"Schedule {schedule.name} {words}.")
            facts.append({"schedule": schedule.name, **fact})
        return self.answer("\n".join(lines), facts)

    def _act(self, verb: str, schedule: Schedule) -> tuple[str, dict[str, Any]]:
        if verb == "run":
            sent = control.run_schedule(schedule, by=self.by, using=self.using)
            return f"has sent message {sent}", {"message_id": int(sent)}
        if verb == "pause":
            changed = control.pause_schedule(schedule, by=self.by, using=self.using)
            return "is paused now" if changed else "was paused already", {"changed": changed}
        changed = control.resume_schedule(schedule, by=self.by, using=self.using)
        return "is resumed now" if changed else "was not paused", {"changed": changed}

    def _list(self, names: list[str]) -> None:
        rows = Schedule.objects.using(self.using).select_related("queue", "topic")
        if names:
            wanted = {control.find_schedule(name, self.using).pk for name in names}
            rows = rows.filter(pk__in=wanted)
        found = list(rows.order_by("name"))
        table = [HEADINGS, *(_row(schedule) for schedule in found)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        self.answer("\n".join(lines), [_facts(schedule) for schedule in found])


def _row(schedule: Schedule) -> tuple[str, ...]:
    return (
        schedule.name,
        _target(schedule),
        _when(schedule),
        f"{schedule.next_at:%Y-%m-%d %H:%M:%S} UTC" if schedule.next_at else "-",
        f"{schedule.last_at:%Y-%m-%d %H:%M:%S} UTC" if schedule.last_at else "-",
        _state(schedule),
    )


def _target(schedule: Schedule) -> str:
    if schedule.topic is not None:
        return f"topic {schedule.topic.name}"
    return f"queue {schedule.queue.name}" if schedule.queue is not None else "nothing"


def _when(schedule: Schedule) -> str:
    try:
        return control.schedule_in_words(schedule)
    except (MessagingError, ValueError) as error:  # a row that somebody wrote by hand
        return f"never: {error}"


def _state(schedule: Schedule) -> str:
    state = "running"
    if schedule.paused_at:
        by = schedule.paused_by or "?"
        state = f"paused by {by} since {schedule.paused_at:%Y-%m-%d %H:%M} UTC"
    return f"{state}; {schedule.failed:,} failed" if schedule.failed else state


def _facts(schedule: Schedule) -> dict[str, Any]:
    moments = {
        name: moment.isoformat() if (moment := getattr(schedule, name)) else None
        for name in ("next_at", "last_at", "paused_at")
    }
    return {
        "name": schedule.name,
        "queue": schedule.queue.name if schedule.queue else None,
        "topic": schedule.topic.name if schedule.topic else None,
        "cron": schedule.cron or None,
        "every": schedule.every,
        "time_zone": schedule.time_zone,
        "catch_up": schedule.catch_up,
        "when": _when(schedule),
        **moments,
        "paused_by": schedule.paused_by,
        "last_message_id": schedule.last_message_id,
        "failed": schedule.failed,
        "last_error": schedule.last_error,
    }
