"""List the topics with what is going on in them."""

import datetime
from argparse import ArgumentParser
from typing import Any

from messaging import control
from messaging.management.operators import EXIT_CODES, OperatorCommand, number
from messaging.management.showing import table
from messaging.store.depths import counted
from messaging.store.topics import TopicRow

HEADINGS = ("topic", "subscriptions", "retention", "schema", "last minute", "last event")


class Command(OperatorCommand):
    help = (
        "List the topics: how many subscriptions match, for how long the log keeps its events, the "
        "version of its schema, how many events there were in the last minute (exact up to "
        f"10,000), and when the last one was. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="*", help="The topics (default: all).")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        found = control.topics(options["name"] or None, using=self.using)
        self.answer(table(HEADINGS, map(_row, found)), [_facts(topic) for topic in found])


def _row(topic: TopicRow) -> tuple[str, ...]:
    return (
        topic.name,
        f"{topic.subscriptions:,}",
        str(datetime.timedelta(seconds=topic.retention)),
        "-" if topic.schema_version is None else f"version {topic.schema_version}",
        counted(topic.recent),
        f"{topic.last_at:%Y-%m-%d %H:%M:%S} UTC" if topic.last_at else "-",
    )


def _facts(topic: TopicRow) -> dict[str, Any]:
    return {
        "name": topic.name,
        "description": topic.description,
        "subscriptions": topic.subscriptions,
        "retention": topic.retention,
        "schema_version": topic.schema_version,
        "last_minute": number(topic.recent),
        "last_message": topic.last_id,
        "last_at": topic.last_at.isoformat() if topic.last_at else None,
    }
