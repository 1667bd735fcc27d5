"""Fragments: the parts of the overview that change, each under the id of its element."""

from dataclasses import dataclass, field

from django.template.loader import get_template

from .. import metrics
from .access import Viewer
from .presenting import Presented, present

PARTS = (
    "summary",
    "problem",
    "throughput",
    "attention",
    "queues_note",
    "workers",
    "dead_letters",
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures that pages show at one time; without ``page`` none could be had yet."""

    page: Presented | None
    is_outdated: bool = False
    _rendered: dict[Viewer, dict[str, str]] = field(default_factory=dict)

    def fragments(self, viewer: Viewer) -> dict[str, str]:
        """Return element ids to HTML; equal viewers get the same, which is made once."""
        if viewer not in self._rendered:
            self._rendered[viewer] = self._render(viewer)
        return self._rendered[viewer]

    @property
    def rows(self) -> list[str] | None:
        """Return the ids of the table's rows in their order; None when they are not known."""
        if self.page is None:
            return None
        return [row_id(queue.figures.id) for queue in self.page.queues]

    def _render(self, viewer: Viewer) -> dict[str, str]:
        context = {"page": self.page, "is_outdated": self.is_outdated, "viewer": viewer}
        parts = PARTS if self.page else ("summary", "problem")
        rendered = {
            f"live-{part}": get_template(f"messaging/overview/_{part}.html").render(context)
            for part in parts
        }
        if self.page:
            tile = get_template("messaging/overview/_tile.html")
            for each in self.page.tiles:
                rendered[f"live-{each.kind}"] = tile.render({"tile": each})
            row = get_template("messaging/overview/_queue.html")
            for queue in self.page.queues:
                rendered[row_id(queue.figures.id)] = row.render(context | {"queue": queue})
        return {name: html.strip() for name, html in rendered.items()}


def row_id(queue_id: int) -> str:
    """Return the id of a queue's row."""
    return f"queue-{queue_id}"


def read_figures() -> Figures:
    """Read the figures of this moment; raise DatabaseError when they cannot be had."""
    return Figures(page=present(metrics.overview()))


def outdated(before: Figures | None) -> Figures:
    """Return the figures from before, which say that there are no newer ones."""
    return Figures(page=before.page if before else None, is_outdated=True)
