"""Hot tables: the log, and where its messages wait.

Rows are inserted and deleted, hardly ever updated; they carry no foreign-key constraints, and the
migrations give them storage settings that the ORM has no words for. Only ``store`` writes them.
"""

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .configuration import Queue, Subscription, Topic


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
    # What shares a queue fairly between senders; has a lane like an ordering key.
    fairness_key = models.CharField(_("fairness key"), max_length=200, null=True)  # noqa: DJ001
    headers = models.JSONField(_("headers"))
    body = models.JSONField(_("body"), null=True)
    published_at = models.DateTimeField(_("published at"), db_default=Now())
    correlation_id = models.CharField(_("correlation id"), max_length=200, null=True)  # noqa: DJ001
    # The message whose handler sent this one.
    causation_id = models.BigIntegerField(_("causation id"), null=True)
    reply_to = models.CharField(_("reply to"), max_length=80, null=True)  # noqa: DJ001
    # Who published it and where, such as "ada@web-1/4711".
    source = models.CharField(_("published by"), max_length=200, null=True)  # noqa: DJ001

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
    """What a delivery is made of, wherever it waits."""

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
    # Never delivered from this moment on.
    expires_at = models.DateTimeField(_("expires at"), null=True)
    # Of an ordering key; such a row stands for all that waits in the lane, and its message is 0.
    lane_id = models.BigIntegerField(null=True)

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
    # Takes its place in the lane of its key when it is due, instead of being ready by itself.
    joins_lane = models.BooleanField(default=False, db_default=False)

    class Meta:
        verbose_name = _("scheduled delivery")
        verbose_name_plural = _("scheduled deliveries")
        indexes = [
            models.Index(fields=["due_at", "id"], name="messaging_scheduled_due"),
            models.Index(fields=["queue", "due_at", "id"], name="messaging_scheduled_queue"),
            # The delays of one message; the tokens of lanes have the message 0.
            models.Index(fields=["message", "lane_id"], name="messaging_scheduled_message"),
        ]


class Lane(models.Model):
    """An ordering or fairness key that has messages: it has a token, or is parked.

    A token is a row without a message, ready, scheduled or in flight; whoever claims it may take
    entries. Publishers lock the lane before they draw an entry's id.
    """

    class Kind(models.IntegerChoices):
        ORDERED = 0, _("ordering key")
        FAIR = 1, _("fairness key")

    queue = models.ForeignKey(
        Queue, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    kind = models.SmallIntegerField(choices=Kind)
    key = models.CharField(_("key"), max_length=200)
    # How many tokens it has: one, so that its messages come one after another, or for a fairness
    # key some more; ``added`` are those of the last publication.
    tokens = models.SmallIntegerField(default=1)
    added = models.SmallIntegerField(default=1)
    # After a dead letter, with the policy "park": no token until it is redriven or released.
    parked_at = models.DateTimeField(_("parked at"), null=True)

    class Meta:
        verbose_name = _("ordering key")
        verbose_name_plural = _("ordering keys")
        constraints = [
            models.UniqueConstraint(fields=["queue", "kind", "key"], name="messaging_lane_once")
        ]
        indexes = [
            models.Index(
                fields=["queue", "id"],
                name="messaging_lane_parked",
                condition=models.Q(parked_at__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return self.key


class Arrival(models.Model):
    """A message with a key, until its transaction commits; then a trigger gives it its place.

    Lanes are locked in the trigger, in order and only while the transaction commits: ids of a key
    follow the order of commits, and transactions that send to several keys cannot deadlock.
    """

    # The transaction comes from the database: pg_current_xact_id() as xid8.
    queue = models.ForeignKey(
        Queue, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    kind = models.SmallIntegerField(choices=Lane.Kind)
    key = models.CharField(max_length=200)
    priority = models.SmallIntegerField()
    message = models.ForeignKey(
        Message, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    attempt = models.SmallIntegerField()
    subscription = models.ForeignKey(
        Subscription,
        on_delete=models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    expires_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"arrival of message {self.message_id} for {self.key}"


class LaneEntry(models.Model):
    """A message that waits in its lane; the order of ids is the order of delivery."""

    queue = models.ForeignKey(
        Queue, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    lane_id = models.BigIntegerField()
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
    expires_at = models.DateTimeField(_("expires at"), null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["queue", "lane_id", "id"], name="messaging_lane_entry_next"
            )
        ]

    def __str__(self) -> str:
        return f"entry of message {self.message_id} in lane {self.lane_id}"


class Lease(Waiting):
    """In flight under a lease; ``token`` fences it. The id is that of the delivery it was."""

    token = models.BigIntegerField(_("token"))
    worker = models.CharField(_("worker"), max_length=150)
    # The place in the lane, of a message with a key.
    entry_id = models.BigIntegerField(null=True)
    leased_at = models.DateTimeField(_("leased at"), db_default=Now())
    leased_until = models.DateTimeField(_("leased until"))

    class Meta:
        verbose_name = _("lease")
        verbose_name_plural = _("leases")
        constraints = [models.UniqueConstraint(fields=["token"], name="messaging_lease_token")]
        indexes = [
            models.Index(fields=["leased_until"], name="messaging_lease_until"),
            models.Index(fields=["queue", "id"], name="messaging_lease_queue"),
        ]
