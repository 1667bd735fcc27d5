"""Tables of what is done over time: operations on many messages, and schedules."""

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..encoding import check_priority, encode_body, encode_headers
from ..exceptions import InvalidOption, MessagingError
from ..ticks import check_ticks, check_time_zone
from .configuration import Queue, Topic, validate_queue_name


class OperationState(models.TextChoices):
    RUNNING = "running", _("running")
    CANCELLED = "cancelled", _("cancelled")
    DONE = "done", _("done")
    FAILED = "failed", _("failed")


class Operation(models.Model):
    """One verb on many messages: what was asked, by whom, and how far it is."""

    kind = models.CharField(_("what"), max_length=16)
    state = models.CharField(
        _("state"), max_length=9, choices=OperationState, default=OperationState.RUNNING
    )
    queue = models.ForeignKey(
        Queue,
        verbose_name=_("queue"),
        on_delete=models.SET_NULL,
        null=True,
        db_constraint=False,
        related_name="+",
    )
    to = models.ForeignKey(
        Queue,
        verbose_name=_("to queue"),
        on_delete=models.SET_NULL,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    # As frozen when it began: what is meant, up to where, and how to do it.
    filter = models.JSONField(_("filter"), default=dict)
    options = models.JSONField(_("options"), default=dict)
    rate = models.FloatField(_("rate"), null=True, help_text=_("messages a second"))
    total = models.BigIntegerField(_("messages"), null=True)
    is_exact = models.BooleanField(default=True)
    done = models.BigIntegerField(_("done"), default=0)
    # How far it has come; only the engine of operations reads it.
    position = models.JSONField(default=dict)
    error = models.TextField(_("error"), blank=True)
    created_at = models.DateTimeField(_("begun at"), db_default=Now())
    created_by = models.CharField(_("begun by"), max_length=150, blank=True)
    advanced_at = models.DateTimeField(_("last progress at"), null=True)
    finished_at = models.DateTimeField(_("ended at"), null=True)
    cancelled_by = models.CharField(_("cancelled by"), max_length=150, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = _("operation")
        verbose_name_plural = _("operations")
        indexes = [
            models.Index(
                fields=["id"],
                condition=models.Q(state="running"),
                name="messaging_operation_running",
            )
        ]

    def __str__(self) -> str:
        return f"operation {self.pk} ({self.kind})"


class CatchUp(models.TextChoices):
    SKIP = "skip", _("skip: none of those that were missed")
    LAST = "last", _("last: one, for the last that was missed")
    ALL = "all", _("all: one for each that was missed")


class Schedule(models.Model):
    """A message that is sent again and again: by a cron expression, or every so many seconds."""

    name = models.CharField(_("name"), max_length=80, unique=True, validators=[validate_queue_name])
    description = models.CharField(_("description"), max_length=200, blank=True)
    queue = models.ForeignKey(
        Queue, verbose_name=_("queue"), on_delete=models.CASCADE, null=True, blank=True
    )
    topic = models.ForeignKey(
        Topic, verbose_name=_("topic"), on_delete=models.CASCADE, null=True, blank=True
    )
    body = models.JSONField(_("body"), null=True, blank=True)
    headers = models.JSONField(_("headers"), default=dict, blank=True)
    priority = models.SmallIntegerField(_("priority"), default=0)
    cron = models.CharField(
        _("cron expression"),
        max_length=100,
        blank=True,
        help_text=_("Minute, hour, day of month, month, day of week, such as “0 6 * * MON-FRI”."),
    )
    every = models.FloatField(_("every"), null=True, blank=True, help_text=_("seconds"))
    time_zone = models.CharField(_("time zone"), max_length=64, default="UTC")
    catch_up = models.CharField(_("catch up"), max_length=4, choices=CatchUp, default=CatchUp.LAST)
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True, editable=False)
    paused_by = models.CharField(_("paused by"), max_length=150, blank=True, editable=False)
    next_at = models.DateTimeField(_("next run"), null=True, blank=True, editable=False)
    last_at = models.DateTimeField(_("last run"), null=True, blank=True, editable=False)
    last_message_id = models.BigIntegerField(null=True, editable=False)
    failed = models.PositiveIntegerField(_("failed runs"), default=0, db_default=0, editable=False)
    last_error = models.TextField(_("last error"), blank=True, db_default="", editable=False)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        indexes = [models.Index(fields=["next_at"], name="messaging_schedule_next")]
        permissions = [("run_schedule", "Can run and pause schedules")]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **options: Any) -> None:
        """Store it, and have a worker plan anew when its ticks are other ones now."""
        if self.pk is not None and not self._state.adding:
            times = ("cron", "every", "time_zone")
            rows = type(self)._default_manager.using(options.get("using") or self._state.db)
            before = rows.filter(pk=self.pk).values_list(*times).first()
            if before != tuple(getattr(self, name) for name in times):
                self.next_at = None
                if options.get("update_fields") is not None:
                    options["update_fields"] = {*options["update_fields"], "next_at"}
        super().save(*args, **options)

    def clean(self) -> None:
        super().clean()
        errors: dict[str, Any] = {}
        if self.headers is None:  # what an empty field of a form becomes
            self.headers = {}
        if (self.queue_id is None) == (self.topic_id is None):
            errors["queue"] = _("Choose a queue or a topic, one of them.")
        checks: tuple[tuple[str, Callable[[], object]], ...] = (
            ("headers", lambda: encode_headers(self.headers)),
            ("priority", lambda: check_priority(self.priority)),
            ("body", lambda: encode_body(self.body)),
            ("time_zone", lambda: check_time_zone(self.time_zone)),
            ("cron", lambda: check_ticks(self.cron, self.every, "UTC")),
        )
        for name, check in checks:
            try:
                check()
            except InvalidOption as error:
                errors[error.option] = str(error)
            except MessagingError as error:
                errors[name] = str(error)
        if errors:
            raise ValidationError(errors)
        self.cron = " ".join(self.cron.split())

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None
