"""Tables of the workers: who is alive, what they have done, and what limits them together."""

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .configuration import Queue


class Worker(models.Model):
    """A worker process that is alive, as its last heartbeat said."""

    name = models.CharField(_("name"), max_length=150, unique=True)
    host = models.CharField(_("host"), max_length=100)
    pid = models.IntegerField(_("process"))
    version = models.CharField(_("version"), max_length=20)
    queues = models.JSONField(_("queues"))
    threads = models.SmallIntegerField(_("threads"))
    running = models.JSONField(_("running"), help_text=_("Queue → messages in flight."))
    handled = models.BigIntegerField(_("handled"))
    failed = models.BigIntegerField(_("failed"))
    state = models.CharField(_("state"), max_length=10)
    started_at = models.DateTimeField(_("started at"))
    seen_at = models.DateTimeField(_("last heartbeat"))

    class Meta:
        ordering = ["name"]
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        permissions = [("control_worker", "Can stop and pause workers")]

    def __str__(self) -> str:
        return self.name


class Stat(models.Model):
    """What one process did to one queue or topic in about a second."""

    at = models.DateTimeField(db_default=Now())
    process = models.CharField(max_length=150)
    queue = models.ForeignKey(
        Queue,
        on_delete=models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    published = models.IntegerField(db_default=0)
    acknowledged = models.IntegerField(db_default=0)
    failed = models.IntegerField(db_default=0)
    dead = models.IntegerField(db_default=0)
    expired = models.IntegerField(db_default=0)
    dropped = models.IntegerField(
        db_default=0, help_text=_("Removed by senders, to make room in a full queue.")
    )
    busy = models.FloatField(db_default=0, help_text=_("Seconds that handlers ran."))

    class Meta:
        indexes = [models.Index(fields=["at"], name="messaging_stat_at")]

    def __str__(self) -> str:
        return f"{self.process} {self.at}"


class RateLimit(models.Model):
    """The tokens left of a queue's rate limit, or of one of its ordering keys (token bucket)."""

    queue = models.ForeignKey(
        Queue, on_delete=models.CASCADE, db_constraint=False, related_name="+"
    )
    # Empty: of the whole queue.
    key = models.CharField(max_length=200, blank=True, default="")
    tokens = models.FloatField()
    filled_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["queue", "key"], name="messaging_rate_limit_once")
        ]

    def __str__(self) -> str:
        return f"{self.queue_id} {self.key}"


class Room(models.Model):
    """How many messages a queue with a max length can take before it has to be counted again."""

    queue = models.OneToOneField(
        Queue, on_delete=models.CASCADE, db_constraint=False, primary_key=True, related_name="+"
    )
    free = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.queue_id} {self.free}"


class ActiveConsumer(models.Model):
    """The worker that alone consumes a queue, until its turn ends."""

    queue = models.OneToOneField(
        Queue, on_delete=models.CASCADE, db_constraint=False, primary_key=True, related_name="+"
    )
    worker = models.CharField(max_length=150)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.queue_id} {self.worker}"
