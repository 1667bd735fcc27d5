"""Export what people configure, queues to webhooks, to keep or import it."""

import json
from typing import Any

from .. import conf
from .definitions import KINDS, VERSION, fields_of, value_of

# What ends with its process.
EPHEMERAL: dict[str, dict[str, Any]] = {
    "queues": {"subscriptions__idle_timeout__isnull": False},
    "subscriptions": {"queue__subscriptions__idle_timeout__isnull": False},
    "webhooks": {"queue__subscriptions__idle_timeout__isnull": False},
}


def export_definitions(*, using: str | None = None) -> str:
    """Return all queues, topics, schemas, subscriptions, schedules and webhooks, as JSON.

    Messages, ids, pauses, whether a queue accepts messages or a webhook is enabled, and what is
    ephemeral are not part of it; of secrets there are only the names. Names are the identity: what
    is imported finds its rows by them. Of its schema a topic names the version that counts.
    """
    alias = using or conf.DATABASE
    found: dict[str, list[dict[str, Any]]] = {}
    # From the last on: a queue that a subscription has named is there when its turn comes.
    for kind in reversed(KINDS):
        fields = fields_of(kind)
        others = [name for name, field in fields.items() if field.is_relation]
        rows = KINDS[kind]._default_manager.using(alias).exclude(**EPHEMERAL.get(kind, {}))
        if others:  # Django would take none for all of them
            rows = rows.select_related(*others)
        found[kind] = [
            {name: value_of(row, field) for name, field in fields.items()} for row in rows
        ]
    document = {"version": VERSION} | {kind: found[kind] for kind in KINDS}
    return json.dumps(document, indent=2, ensure_ascii=False)
