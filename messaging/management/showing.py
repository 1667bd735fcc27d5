"""Show what commands have found: as a table, and as values that JSON knows."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows below their headings, each column as wide as it has to be."""
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def facts(found: Any) -> dict[str, Any]:
    """Return a dataclass as JSON has it."""
    told: dict[str, Any] = json.loads(json.dumps(asdict(found), cls=DjangoJSONEncoder))
    return told
