"""Webhooks: where the messages of queues are sent by HTTP."""

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
import messaging.models.configuration
import messaging.models.webhooks
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("messaging", "0006_filters"),
    ]

    operations = [
        migrations.CreateModel(
            name="Webhook",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        max_length=80,
                        unique=True,
                        validators=[messaging.models.configuration.validate_queue_name],
                        verbose_name="name",
                    ),
                ),
                (
                    "description",
                    models.CharField(blank=True, max_length=200, verbose_name="description"),
                ),
                (
                    "url",
                    models.CharField(
                        help_text="https://, to a public host.",
                        max_length=500,
                        validators=[messaging.models.webhooks.validate_url],
                        verbose_name="URL",
                    ),
                ),
                (
                    "secret",
                    models.CharField(
                        help_text="Its name in MESSAGING[“WEBHOOK_SECRETS”]; never the secret itself.",
                        max_length=80,
                        validators=[messaging.models.webhooks.validate_secret],
                        verbose_name="secret",
                    ),
                ),
                (
                    "timeout",
                    models.FloatField(
                        default=15,
                        help_text="Seconds that one request may take, from the look-up of the host on.",
                        validators=[
                            django.core.validators.MinValueValidator(0.1),
                            django.core.validators.MaxValueValidator(300),
                        ],
                        verbose_name="timeout",
                    ),
                ),
                (
                    "disabled_at",
                    models.DateTimeField(
                        blank=True, editable=False, null=True, verbose_name="disabled at"
                    ),
                ),
                (
                    "disabled_by",
                    models.CharField(
                        blank=True, editable=False, max_length=150, verbose_name="disabled by"
                    ),
                ),
                (
                    "disabled_reason",
                    models.CharField(
                        blank=True, editable=False, max_length=200, verbose_name="reason"
                    ),
                ),
                (
                    "failures",
                    models.PositiveIntegerField(
                        default=0, editable=False, verbose_name="failures in a row"
                    ),
                ),
                (
                    "rests_until",
                    models.DateTimeField(
                        blank=True, editable=False, null=True, verbose_name="rests until"
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        editable=False,
                        verbose_name="created at",
                    ),
                ),
                (
                    "queue",
                    models.OneToOneField(
                        help_text="Its messages are sent. Subscribe it to topics to have theirs sent.",
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="webhook",
                        to="messaging.queue",
                        verbose_name="queue",
                    ),
                ),
            ],
            options={
                "verbose_name": "webhook",
                "verbose_name_plural": "webhooks",
                "ordering": ["name"],
                "permissions": [
                    ("manage_webhooks", "Can add, change, enable and disable webhooks")
                ],
                "default_permissions": ("view",),
            },
        ),
    ]
