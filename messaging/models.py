"""Tables: configuration that people edit, and hot tables that only `store` touches.

Hot rows are inserted and deleted, never updated; they carry no foreign-key constraints, and the
migrations give them storage settings that the ORM has no words for.
"""

import math
from collections.abc import Callable

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .exceptions import InvalidName
from .names import check_pattern, check_queue_name, check_topic_name

DAY = 86_400


def validate_queue_name(value: str) -> None:
    """Refuse what cannot be a queue's name."""
    _validate(check_queue_name, value)


def validate_topic_name(value: str) -> None:
    """Refuse what cannot be a topic's name."""
    _validate(check_topic_name, value)


def validate_pattern(value: str) -> None:
    """Refuse what cannot be a topic pattern."""
    _validate(check_pattern, value)


def validate_delays(value: object) -> None:
    """Refuse what is not a list of seconds."""
    if not isinstance(value, list) or len(value) > 100:
        raise ValidationError(
            _("Use a list of at most 100 delays in seconds, such as [1, 10, 60].")
        )
    for delay in value:
        if (
            isinstance(delay, bool)
            or not isinstance(delay, int | float)
            or not 0 <= delay <= 366 * DAY
        ):
            raise ValidationError(
                _("%(delay)s is no delay: use 0 to 31622400 seconds."), params={"delay": delay}
            )


def _validate(check: Callable[[str], str], value: str) -> None:
    try:
        check(value)
    except InvalidName as error:
        raise ValidationError(str(error)) from error


class Backoff(models.TextChoices):
    FIXED = "fixed", _("fixed: the base every time")
    LINEAR = "linear", _("linear: base, 2 × base, 3 × base, ...")
    EXPONENTIAL = "exponential", _("exponential: base, 2 × base, 4 × base, ...")
    LIST = "list", _("list: the delays given, the last one repeated")


class Jitter(models.TextChoices):
    FULL = "full", _("full: a random time between 0 and the delay")
    NONE = "none", _("none: the delay exactly")


class Queue(models.Model):
    """Where each message goes to one consumer."""

    name = models.CharField(
        _("name"),
        max_length=80,
        unique=True,
        validators=[validate_queue_name],
        help_text=_("Letters, digits, “_”, “-” and “.”. Senders use this name."),
    )
    description = models.CharField(_("description"), max_length=200, blank=True)
    max_deliveries = models.PositiveSmallIntegerField(
        _("max deliveries"),
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text=_("After this many failed deliveries a message becomes a dead letter."),
    )
    backoff = models.CharField(
        _("back-off"),
        max_length=12,
        choices=Backoff,
        default=Backoff.EXPONENTIAL,
        help_text=_("How the wait before the next delivery grows with each failure."),
    )
    backoff_base = models.FloatField(
        _("back-off base"),
        default=10,
        validators=[MinValueValidator(0), MaxValueValidator(366 * DAY)],
        help_text=_("Seconds to wait after the first failure."),
    )
    backoff_cap = models.FloatField(
        _("back-off cap"),
        default=600,
        validators=[MinValueValidator(0), MaxValueValidator(366 * DAY)],
        help_text=_("Seconds: no wait is longer than this."),
    )
    backoff_delays = models.JSONField(
        _("back-off delays"),
        default=list,
        blank=True,
        validators=[validate_delays],
        help_text=_("For the back-off “list”: seconds, such as [1, 10, 60]."),
    )
    jitter = models.CharField(
        _("jitter"),
        max_length=4,
        choices=Jitter,
        default=Jitter.FULL,
        help_text=_("Spreads retries, so that what failed together does not return together."),
    )
    deduplication_window = models.PositiveIntegerField(
        _("deduplication window"),
        default=300,
        null=True,
        blank=True,
        help_text=_("Seconds during which a deduplication id counts. 0: off. Empty: for ever."),
    )
    retention = models.PositiveIntegerField(
        _("retention"),
        default=7 * DAY,
        validators=[MinValueValidator(60)],
        help_text=_("Seconds for which the log keeps messages that nobody waits for any more."),
    )
    dead_letter_queue = models.ForeignKey(
        "self",
        verbose_name=_("dead-letter queue"),
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="dead_letter_sources",
        help_text=_("Where dead letters are held. Empty: under this queue itself."),
    )
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True, editable=False)
    paused_by = models.CharField(_("paused by"), max_length=150, blank=True, editable=False)
    pause_reason = models.CharField(_("pause reason"), max_length=200, blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        permissions = [
            ("pause_queue", "Can pause and resume queues"),
            ("purge_queue", "Can purge queues"),
            ("consume_queue", "Can receive from queues"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        super().clean()
        if not isinstance(self.backoff_delays, list):  # Django skips validators for {} and ""
            raise ValidationError({"backoff_delays": _("Use a list of delays in seconds.")})
        for field in ("backoff_base", "backoff_cap"):
            value = getattr(self, field)
            if isinstance(value, float) and not math.isfinite(value):  # NaN passes both bounds
                raise ValidationError({field: _("Use a number of seconds.")})
        if self.backoff == Backoff.LIST and not self.backoff_delays:
            raise ValidationError({"backoff_delays": _("The back-off “list” needs its delays.")})
        seen = {self.pk}
        following = self.dead_letter_queue
        while following is not None:
            if following.pk in seen or following.name == self.name:
                raise ValidationError(
                    {"dead_letter_queue": _("Dead letters would go round in a circle.")}
                )
            seen.add(following.pk)
            following = following.dead_letter_queue

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None


class Topic(models.Model):
    """A dotted name published to; fans out to the queues that subscribe."""

    name = models.CharField(
        _("name"),
        max_length=80,
        unique=True,
        validators=[validate_topic_name],
        help_text=_("Words separated by dots, such as “orders.placed”. Publishers use this name."),
    )
    description = models.CharField(_("description"), max_length=200, blank=True)
    deduplication_window = models.PositiveIntegerField(
        _("deduplication window"),
        default=300,
        null=True,
        blank=True,
        help_text=_("Seconds during which a deduplication id counts. 0: off. Empty: for ever."),
    )
    retention = models.PositiveIntegerField(
        _("retention"),
        default=7 * DAY,
        validators=[MinValueValidator(60)],
        help_text=_("Seconds for which the log keeps messages that nobody waits for any more."),
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = _("topic")
        verbose_name_plural = _("topics")

    def __str__(self) -> str:
        return self.name


class Subscription(models.Model):
    """This topic, or every topic that matches a pattern, also goes to that queue."""

    pattern = models.CharField(
        _("topic or pattern"),
        max_length=80,
        validators=[validate_pattern],
        help_text=_("“orders.placed”; “orders.*”: one word; “orders.#”: any number of words."),
    )
    queue = models.ForeignKey(
        Queue, verbose_name=_("queue"), on_delete=models.CASCADE, related_name="subscriptions"
    )
    is_active = models.BooleanField(
        _("active"), default=True, help_text=_("Inactive: new messages do not go to the queue.")
    )
    description = models.CharField(_("description"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    class Meta:
        ordering = ["pattern", "queue__name"]
        verbose_name = _("subscription")
        verbose_name_plural = _("subscriptions")
        constraints = [
            models.UniqueConstraint(fields=["pattern", "queue"], name="messaging_subscription_once")
        ]

    def __str__(self) -> str:
        return f"{self.pattern} → {self.queue}"


class Binding(models.Model):
    """A topic and a subscription that match: what the publish statement looks up.

    Triggers keep it, so that it is right whoever writes topics and subscriptions, and however.
    """

    topic = models.ForeignKey(Topic, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE, db_constraint=False)
    queue = models.ForeignKey(
        Queue, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["topic", "subscription"], name="messaging_binding_once")
        ]

    def __str__(self) -> str:
        return f"{self.topic_id} → {self.queue_id}"


class Message(models.Model):
    """The log: every payload once, append-only, kept for its retention."""

    # id and transaction come from the database: identity, and pg_current_xact_id() as xid8.
    queue = models.ForeignKey(
        Queue, on_delete=models.DO_NOTHING, null=True, db_constraint=False, db_index=False
    )
    topic = models.ForeignKey(
        Topic, on_delete=models.DO_NOTHING, null=True, db_constraint=False, db_index=False
    )
    ordering_key = models.CharField(_("ordering key"), max_length=200, null=True)  # noqa: DJ001
    headers = models.JSONField(_("headers"))
    body = models.JSONField(_("body"), null=True)
    published_at = models.DateTimeField(_("published at"), db_default=Now())

    class Meta:
        ordering = ["-id"]
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        permissions = [
            ("publish_message", "Can publish messages"),
            ("view_payload", "Can view bodies and headers of messages"),
            ("edit_message", "Can edit messages"),
            ("export_message", "Can export messages"),
        ]

    def __str__(self) -> str:
        return f"message {self.pk}"


class Waiting(models.Model):
    """What a delivery is made of, ready or scheduled."""

    queue = models.ForeignKey(
        Queue, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    priority = models.SmallIntegerField(_("priority"))
    message = models.ForeignKey(
        Message, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    attempt = models.SmallIntegerField(_("attempt"))
    subscription = models.ForeignKey(
        Subscription,
        on_delete=models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"delivery of message {self.message_id} to queue {self.queue_id}"


class Delivery(Waiting):
    """Ready: one narrow row per queue that should get the message."""

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        constraints = [
            models.UniqueConstraint(
                fields=["queue", "priority", "id"], name="messaging_delivery_next"
            )
        ]


class Scheduled(Waiting):
    """Due later: a delay or the back-off of a retry."""

    due_at = models.DateTimeField(_("due at"))

    class Meta:
        verbose_name = _("scheduled delivery")
        verbose_name_plural = _("scheduled deliveries")
        indexes = [
            models.Index(fields=["due_at", "id"], name="messaging_scheduled_due"),
            models.Index(fields=["queue", "due_at"], name="messaging_scheduled_queue"),
        ]


class Reason(models.TextChoices):
    REJECTED = "rejected", _("rejected")
    MAX_DELIVERIES = "max_deliveries", _("max deliveries")
    WORKER_DIED = "worker_died", _("worker died")
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
    busy = models.FloatField(db_default=0, help_text=_("Seconds that handlers ran."))

    class Meta:
        indexes = [models.Index(fields=["at"], name="messaging_stat_at")]

    def __str__(self) -> str:
        return f"{self.process} {self.at}"
