"""Workers: see the processes that are alive."""

import datetime
from typing import Any

from django.contrib import admin
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from ..models import Worker
from .lists import RecordAdmin

# A worker that has been silent for longer is taken for dead.
SILENCE = datetime.timedelta(seconds=15)


@admin.register(Worker)
class WorkerAdmin(RecordAdmin):
    list_display = (
        "name",
        "is_live",
        "state",
        "serves",
        "in_flight",
        "handled",
        "failed",
        "started_at",
        "seen_at",
    )
    ordering = ("name",)
    fields = (
        "name",
        "host",
        "pid",
        "version",
        "state",
        "is_live",
        "serves",
        "threads",
        "in_flight",
        "handled",
        "failed",
        "started_at",
        "seen_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        heard = ExpressionWrapper(Q(seen_at__gt=Now() - SILENCE), output_field=BooleanField())
        rows: QuerySet = super().get_queryset(request).annotate(heard=heard)
        return rows

    @admin.display(description=gettext_lazy("alive"), boolean=True)
    def is_live(self, worker: Any) -> bool:
        return bool(worker.heard)

    @admin.display(description=gettext_lazy("queues"))
    def serves(self, worker: Worker) -> str:
        return ", ".join(map(str, worker.queues))

    @admin.display(description=gettext_lazy("in flight"))
    def in_flight(self, worker: Worker) -> str:
        return ", ".join(f"{queue}: {count}" for queue, count in worker.running.items() if count)
