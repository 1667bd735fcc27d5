"""Tables of what became of messages, and of what must not happen twice."""

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .configuration import Queue, Topic


class Reason(models.TextChoices):
    REJECTED = "rejected", _("rejected")
    MAX_DELIVERIES = "max_deliveries", _("max deliveries")
    WORKER_DIED = "worker_died", _("worker died")
    EXPIRED = "expired", _("expired")
    MAX_LENGTH = "max_length", _("max length")
    TIMEOUT = "timeout", _("timeout")
    NO_CONSUMER = "no_consumer", _("no consumer")
    UNDECODABLE = "undecodable", _("undecodable")
    MANUAL = "manual", _("manual")


class DeadLetter(models.Model):
    """A message that no consumer could handle; its payload is copied, so it outlives the log."""

    message_id = models.BigIntegerField(_("message id"))
    queue = models.ForeignKey(
        Queue,
        verbose_name=_("held in"),
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text=_("The dead-letter queue."),
    )
    origin = models.ForeignKey(
        Queue,
        verbose_name=_("from queue"),
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text=_("The queue whose consumer failed."),
    )
    topic = models.ForeignKey(
        Topic, on_delete=models.DO_NOTHING, null=True, db_constraint=False, db_index=False
    )
    subscription_id = models.BigIntegerField(null=True)
    priority = models.SmallIntegerField(_("priority"))
    ordering_key = models.CharField(_("ordering key"), max_length=200, null=True)  # noqa: DJ001
    fairness_key = models.CharField(_("fairness key"), max_length=200, null=True)  # noqa: DJ001
    # Its place in the lane of its ordering key, which a redrive gives back.
    entry_id = models.BigIntegerField(null=True)
    correlation_id = models.CharField(_("correlation id"), max_length=200, null=True)  # noqa: DJ001
    causation_id = models.BigIntegerField(_("causation id"), null=True)
    reply_to = models.CharField(_("reply to"), max_length=80, null=True)  # noqa: DJ001
    headers = models.JSONField(_("headers"))
    body = models.JSONField(_("body"), null=True)
    published_at = models.DateTimeField(_("published at"))
    attempts = models.SmallIntegerField(_("deliveries"))
    reason = models.CharField(_("reason"), max_length=16, choices=Reason)
    description = models.TextField(_("description"), blank=True)
    error = models.CharField(_("error"), max_length=200, blank=True)
    traceback = models.TextField(_("traceback"), blank=True)
    fingerprint = models.CharField(_("fingerprint"), max_length=32)
    died_at = models.DateTimeField(_("died at"), db_default=Now())

    class Meta:
        ordering = ["-id"]
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        indexes = [
            models.Index(fields=["queue", "id"], name="messaging_dead_queue"),
            models.Index(fields=["origin", "id"], name="messaging_dead_origin"),
            models.Index(fields=["fingerprint", "id"], name="messaging_dead_fingerprint"),
            models.Index(fields=["message_id"], name="messaging_dead_message"),
        ]
        permissions = [("redrive_deadletter", "Can redrive dead letters")]

    def __str__(self) -> str:
        return f"dead letter {self.pk} (message {self.message_id})"


class Attempt(models.Model):
    """One failed delivery: the history that retries and dead letters show."""

    message_id = models.BigIntegerField(_("message id"))
    queue = models.ForeignKey(
        Queue, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    attempt = models.SmallIntegerField(_("attempt"))
    outcome = models.CharField(_("outcome"), max_length=16)
    error = models.CharField(_("error"), max_length=200)
    description = models.TextField(_("description"), blank=True)
    traceback = models.TextField(_("traceback"), blank=True)
    worker = models.CharField(_("worker"), max_length=150)
    duration = models.FloatField(_("duration"), help_text=_("seconds"))
    failed_at = models.DateTimeField(_("failed at"), db_default=Now())

    class Meta:
        ordering = ["id"]
        verbose_name = _("failed attempt")
        verbose_name_plural = _("failed attempts")
        indexes = [models.Index(fields=["message_id", "id"], name="messaging_attempt_message")]

    def __str__(self) -> str:
        return f"attempt {self.attempt} of message {self.message_id}"


class Receipt(models.Model):
    """Messages that one transaction was done with: the history of what went well.

    A migration adds ``message_ids``, an int8multirange. A transaction makes one row, or a few when
    its messages are far apart: ``bucket`` is where all of a row have their ids, so that the one of
    a message is found without an entry for each message.
    """

    queue = models.ForeignKey(
        Queue, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    bucket = models.BigIntegerField()
    count = models.IntegerField(_("messages"))
    # "acknowledged", "expired", "cancelled", "purged" or "replayed"; by a worker or an operator.
    outcome = models.CharField(_("outcome"), max_length=12)
    worker = models.CharField(_("by"), max_length=150)
    duration = models.FloatField(_("duration"), help_text=_("seconds"))
    acknowledged_at = models.DateTimeField(_("acknowledged at"), db_default=Now())

    class Meta:
        ordering = ["id"]
        verbose_name = _("receipt")
        verbose_name_plural = _("receipts")
        indexes = [models.Index(fields=["bucket"], name="messaging_receipt_bucket")]

    def __str__(self) -> str:
        return f"receipt {self.pk} of {self.count} messages"


class Reply(models.Model):
    """What a request was answered, until who asked has read it."""

    token = models.CharField(max_length=80, primary_key=True)
    body = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["created_at"], name="messaging_reply_age")]

    def __str__(self) -> str:
        return f"reply {self.token}"


class Edit(models.Model):
    """What an operator did to a message: what it said before an edit, or that it was redriven."""

    message_id = models.BigIntegerField(_("message id"))
    what = models.CharField(_("what"), max_length=16, default="edited", db_default="edited")
    headers = models.JSONField(_("headers before"))
    body = models.JSONField(_("body before"), null=True)
    edited_by = models.CharField(_("edited by"), max_length=150, blank=True)
    edited_at = models.DateTimeField(_("edited at"), db_default=Now())

    class Meta:
        ordering = ["id"]
        verbose_name = _("edit")
        verbose_name_plural = _("edits")
        indexes = [models.Index(fields=["message_id", "id"], name="messaging_edit_message")]

    def __str__(self) -> str:
        return f"edit {self.pk} of message {self.message_id}"


class Deduplication(models.Model):
    """The deduplication ids that count at present, and the message each stands for."""

    scope = models.CharField(max_length=24)
    key = models.CharField(max_length=200)
    message_id = models.BigIntegerField()
    digest = models.BinaryField()
    expires_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["scope", "key"], name="messaging_deduplication_once")
        ]
        indexes = [models.Index(fields=["expires_at"], name="messaging_deduplication_end")]

    def __str__(self) -> str:
        return f"{self.scope} {self.key}"


class Idempotency(models.Model):
    """What ``once()`` did: the record that commits together with the effect."""

    scope = models.CharField(_("scope"), max_length=80)
    key = models.CharField(_("key"), max_length=200)
    result = models.JSONField(_("result"), null=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    expires_at = models.DateTimeField(_("expires at"), null=True)

    class Meta:
        verbose_name = _("idempotency record")
        verbose_name_plural = _("idempotency records")
        constraints = [
            models.UniqueConstraint(fields=["scope", "key"], name="messaging_idempotency_once")
        ]
        indexes = [models.Index(fields=["expires_at"], name="messaging_idempotency_end")]

    def __str__(self) -> str:
        return f"{self.scope} {self.key}"
