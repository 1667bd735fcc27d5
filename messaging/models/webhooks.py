"""Webhooks: the table that people edit of where queues' messages are sent by HTTP."""

import math

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..addresses import MAX_LENGTH, check_url
from ..exceptions import InvalidSecret, InvalidURL
from ..signing_keys import keys_of
from .configuration import Queue, validate_queue_name


def validate_url(value: str) -> None:
    """Refuse an address to which no webhook may be sent."""
    try:
        check_url(value)
    except InvalidURL as error:
        raise ValidationError(str(error)) from error


def validate_secret(value: str) -> None:
    """Refuse the name of a secret that is not there, or cannot sign."""
    try:
        keys_of(value)
    except InvalidSecret as error:
        raise ValidationError(str(error)) from error


class Webhook(models.Model):
    """Where the messages of a queue are sent by HTTP, each signed; its workers are the consumer.

    How often and when it is tried again, how fast, and what becomes of dead letters are the queue's
    policies. The secret is known by its name in the settings; it never gets into the database.
    """

    name = models.CharField(_("name"), max_length=80, unique=True, validators=[validate_queue_name])
    description = models.CharField(_("description"), max_length=200, blank=True)
    queue = models.OneToOneField(
        Queue,
        verbose_name=_("queue"),
        on_delete=models.CASCADE,
        related_name="webhook",
        help_text=_("Its messages are sent. Subscribe it to topics to have theirs sent."),
    )
    # Text, and no URLField, for which the admin makes a link of whatever is stored.
    url = models.CharField(
        _("URL"),
        max_length=MAX_LENGTH,
        validators=[validate_url],
        help_text=_("https://, to a public host."),
    )
    secret = models.CharField(
        _("secret"),
        max_length=80,
        validators=[validate_secret],
        help_text=_("Its name in MESSAGING[“WEBHOOK_SECRETS”]; never the secret itself."),
    )
    timeout = models.FloatField(
        _("timeout"),
        default=15,
        validators=[MinValueValidator(0.1), MaxValueValidator(300)],
        help_text=_("Seconds that one request may take, from the look-up of the host on."),
    )
    disabled_at = models.DateTimeField(_("disabled at"), null=True, blank=True, editable=False)
    disabled_by = models.CharField(_("disabled by"), max_length=150, blank=True, editable=False)
    disabled_reason = models.CharField(_("reason"), max_length=200, blank=True, editable=False)
    # The breaker: failures in a row, and until when it is left alone for them.
    failures = models.PositiveIntegerField(_("failures in a row"), default=0, editable=False)
    rests_until = models.DateTimeField(_("rests until"), null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")
        default_permissions = ("view",)
        permissions = [("manage_webhooks", "Can add, change, enable and disable webhooks")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        super().clean()
        if isinstance(self.timeout, float) and not math.isfinite(self.timeout):
            raise ValidationError({"timeout": _("Use a finite number.")})  # NaN passes both bounds

    @property
    def is_disabled(self) -> bool:
        return self.disabled_at is not None
