"""Tables that people edit: queues, topics and subscriptions. Their rows are the truth."""

import math
from collections.abc import Callable

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..exceptions import InvalidFilter, InvalidName
from ..matching import check_filter
from ..names import check_pattern, check_queue_name, check_topic_name

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


class Overflow(models.TextChoices):
    REJECT = "reject", _("reject: sending raises QueueFull")
    DROP_OLDEST = "drop_oldest", _("drop oldest: what has waited longest is deleted")
    DEAD_LETTER_OLDEST = "dead_letter_oldest", _("dead-letter oldest: what has waited longest dies")


class OnFailure(models.TextChoices):
    BLOCK = "block", _("block: the key waits for the retry")
    SKIP = "skip", _("skip: the key goes on, this message comes later")
    PARK = "park", _("park: like block, and a dead letter sets the rest of its key aside")


class FilterScope(models.TextChoices):
    HEADERS = "headers", _("headers")
    BODY = "body", _("body")


class Compatibility(models.TextChoices):
    NONE = "none", _("none: any new version")
    BACKWARD = "backward", _("backward: a new version accepts what the last one accepted")
    FORWARD = "forward", _("forward: the last version accepts what a new one accepts")
    FULL = "full", _("full: both")


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
        help_text=_(
            "Seconds for which the log keeps messages that nobody waits for any more. 0: gone "
            "with the acknowledgement."
        ),
    )
    content_based_deduplication = models.BooleanField(
        _("content-based deduplication"),
        default=False,
        help_text=_("A message without a deduplication id is identified by its body."),
    )
    message_ttl = models.FloatField(
        _("message time to live"),
        null=True,
        blank=True,
        validators=[MinValueValidator(0.001), MaxValueValidator(7_900 * 365 * DAY)],
        help_text=_("Seconds after which a waiting message expires. Empty: never."),
    )
    dead_letter_expired = models.BooleanField(
        _("keep expired messages"),
        default=False,
        help_text=_("Expired messages become dead letters instead of vanishing."),
    )
    visibility_timeout = models.FloatField(
        _("visibility timeout"),
        default=30,
        validators=[MinValueValidator(0), MaxValueValidator(12 * 3_600)],
        help_text=_("Seconds for which receive() and leased consumers hold a message."),
    )
    max_length = models.PositiveIntegerField(
        _("max length"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("How many messages may wait. Empty: any number."),
    )
    overflow = models.CharField(
        _("overflow"),
        max_length=20,
        choices=Overflow,
        default=Overflow.REJECT,
        help_text=_("What happens to a message more than the max length."),
    )
    rate_limit = models.FloatField(
        _("rate limit"),
        null=True,
        blank=True,
        validators=[MinValueValidator(0.001), MaxValueValidator(1_000_000)],
        help_text=_("Messages a second over all workers. Empty: any number."),
    )
    key_rate_limit = models.FloatField(
        _("rate limit per ordering key"),
        null=True,
        blank=True,
        validators=[MinValueValidator(0.001), MaxValueValidator(1_000_000)],
        help_text=_("Messages a second and ordering key over all workers. Empty: any number."),
    )
    concurrency_limit = models.PositiveIntegerField(
        _("concurrency limit"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(10_000)],
        help_text=_("Messages in flight at once over all workers. Empty: any number."),
    )
    single_active_consumer = models.BooleanField(
        _("single active consumer"),
        default=False,
        help_text=_("One worker consumes; another takes over when it is gone."),
    )
    weight = models.PositiveSmallIntegerField(
        _("weight"),
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text=_("This queue's share of a worker that serves several queues."),
    )
    on_failure = models.CharField(
        _("ordering key on failure"),
        max_length=8,
        choices=OnFailure,
        default=OnFailure.BLOCK,
        help_text=_("What a failing message does to the others of its ordering key."),
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
    disabled_at = models.DateTimeField(_("disabled at"), null=True, blank=True, editable=False)
    disabled_by = models.CharField(_("disabled by"), max_length=150, blank=True, editable=False)
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
        for field in self._meta.fields:
            value = getattr(self, field.attname)
            if isinstance(value, float) and not math.isfinite(value):  # NaN passes both bounds
                raise ValidationError({field.name: _("Use a finite number.")})
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

    @property
    def is_disabled(self) -> bool:
        return self.disabled_at is not None


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
    content_based_deduplication = models.BooleanField(
        _("content-based deduplication"),
        default=False,
        help_text=_("A message without a deduplication id is identified by its body."),
    )
    retention = models.PositiveIntegerField(
        _("retention"),
        default=7 * DAY,
        help_text=_(
            "Seconds for which the log keeps messages that nobody waits for any more. 0: gone "
            "with the acknowledgement."
        ),
    )
    compatibility = models.CharField(
        _("compatibility"),
        max_length=8,
        choices=Compatibility,
        default=Compatibility.BACKWARD,
        db_default=Compatibility.BACKWARD,
        help_text=_("What a new version of the schema has to keep to."),
    )
    # The version that publishers have to fulfil; none: any body.
    schema = models.ForeignKey(
        "Schema",
        verbose_name=_("schema"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = _("topic")
        verbose_name_plural = _("topics")

    def __str__(self) -> str:
        return self.name


class Schema(models.Model):
    """One version of what the bodies of a topic have to look like; never changed once made."""

    topic = models.ForeignKey(
        Topic, verbose_name=_("topic"), on_delete=models.CASCADE, related_name="schemas"
    )
    version = models.PositiveIntegerField(_("version"), editable=False)
    document = models.JSONField(_("JSON Schema"), help_text=_("Draft 2020-12."))
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    created_by = models.CharField(_("created by"), max_length=150, blank=True, editable=False)

    class Meta:
        ordering = ["topic", "-version"]
        verbose_name = _("schema")
        verbose_name_plural = _("schemas")
        constraints = [
            models.UniqueConstraint(fields=["topic", "version"], name="messaging_schema_once")
        ]

    def __str__(self) -> str:
        return f"{self.topic} version {self.version}"


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
    filter = models.JSONField(
        _("filter"),
        null=True,
        blank=True,
        help_text=_('Only messages that match go to the queue, such as {"country": ["GB"]}.'),
    )
    filter_scope = models.CharField(
        _("filter on"),
        max_length=8,
        choices=FilterScope,
        default=FilterScope.HEADERS,
        db_default=FilterScope.HEADERS,
    )
    # Of an ephemeral subscription: it ends, with its queue, when nobody was there for so long.
    idle_timeout = models.FloatField(
        _("idle timeout"), null=True, blank=True, editable=False, help_text=_("seconds")
    )
    seen_at = models.DateTimeField(_("last used at"), null=True, blank=True, editable=False)
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

    def clean(self) -> None:
        super().clean()
        try:
            check_filter(self.filter, self.filter_scope)
        except InvalidFilter as error:
            raise ValidationError({"filter": str(error)}) from error


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
