"""Filters, schemas, schedules, operations, replies and receipts."""

import django.db.models.deletion
import django.db.models.functions.datetime
import messaging.models.configuration
from django.db import migrations, models


# As ranges, which are as short for a thousand messages in a row as for one. Rows come in the order
# of time and are never changed.
RECEIPT = """
    ALTER TABLE messaging_receipt ADD COLUMN message_ids int8multirange NOT NULL;
    CREATE INDEX messaging_receipt_age ON messaging_receipt USING brin (acknowledged_at);
"""
RECEIPT_BACK = """
    DROP INDEX messaging_receipt_age;
    ALTER TABLE messaging_receipt DROP COLUMN message_ids;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("messaging", "0004_lanes"),
    ]

    operations = [
        migrations.AddField(
            model_name="message",
            name="source",
            field=models.CharField(max_length=200, null=True, verbose_name="published by"),
        ),
        migrations.AddField(
            model_name="subscription",
            name="filter",
            field=models.JSONField(
                blank=True,
                help_text='Only messages that match go to the queue, such as {"country": ["GB"]}.',
                null=True,
                verbose_name="filter",
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="filter_scope",
            field=models.CharField(
                choices=[("headers", "headers"), ("body", "body")],
                db_default="headers",
                default="headers",
                max_length=8,
                verbose_name="filter on",
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="idle_timeout",
            field=models.FloatField(
                blank=True,
                editable=False,
                help_text="seconds",
                null=True,
                verbose_name="idle timeout",
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="seen_at",
            field=models.DateTimeField(
                blank=True, editable=False, null=True, verbose_name="last used at"
            ),
        ),
        migrations.AddField(
            model_name="topic",
            name="compatibility",
            field=models.CharField(
                choices=[
                    ("none", "none: any new version"),
                    ("backward", "backward: a new version accepts what the last one accepted"),
                    ("forward", "forward: the last version accepts what a new one accepts"),
                    ("full", "full: both"),
                ],
                db_default="backward",
                default="backward",
                help_text="What a new version of the schema has to keep to.",
                max_length=8,
                verbose_name="compatibility",
            ),
        ),
        migrations.CreateModel(
            name="Reply",
            fields=[
                ("token", models.CharField(max_length=80, primary_key=True, serialize=False)),
                ("body", models.JSONField(null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["created_at"], name="messaging_reply_age")],
            },
        ),
        migrations.CreateModel(
            name="Schema",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("version", models.PositiveIntegerField(editable=False, verbose_name="version")),
                (
                    "document",
                    models.JSONField(help_text="Draft 2020-12.", verbose_name="JSON Schema"),
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
                    "created_by",
                    models.CharField(
                        blank=True, editable=False, max_length=150, verbose_name="created by"
                    ),
                ),
                (
                    "topic",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="schemas",
                        to="messaging.topic",
                        verbose_name="topic",
                    ),
                ),
            ],
            options={
                "verbose_name": "schema",
                "verbose_name_plural": "schemas",
                "ordering": ["topic", "-version"],
            },
        ),
        migrations.AddField(
            model_name="topic",
            name="schema",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="messaging.schema",
                verbose_name="schema",
            ),
        ),
        migrations.CreateModel(
            name="Operation",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kind", models.CharField(max_length=16, verbose_name="what")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("running", "running"),
                            ("cancelled", "cancelled"),
                            ("done", "done"),
                            ("failed", "failed"),
                        ],
                        default="running",
                        max_length=9,
                        verbose_name="state",
                    ),
                ),
                ("filter", models.JSONField(default=dict, verbose_name="filter")),
                ("options", models.JSONField(default=dict, verbose_name="options")),
                (
                    "rate",
                    models.FloatField(
                        help_text="messages a second", null=True, verbose_name="rate"
                    ),
                ),
                ("total", models.BigIntegerField(null=True, verbose_name="messages")),
                ("is_exact", models.BooleanField(default=True)),
                ("done", models.BigIntegerField(default=0, verbose_name="done")),
                ("position", models.JSONField(default=dict)),
                ("error", models.TextField(blank=True, verbose_name="error")),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="begun at",
                    ),
                ),
                (
                    "created_by",
                    models.CharField(blank=True, max_length=150, verbose_name="begun by"),
                ),
                ("advanced_at", models.DateTimeField(null=True, verbose_name="last progress at")),
                ("finished_at", models.DateTimeField(null=True, verbose_name="ended at")),
                (
                    "cancelled_by",
                    models.CharField(blank=True, max_length=150, verbose_name="cancelled by"),
                ),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="messaging.queue",
                        verbose_name="queue",
                    ),
                ),
                (
                    "to",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="messaging.queue",
                        verbose_name="to queue",
                    ),
                ),
            ],
            options={
                "verbose_name": "operation",
                "verbose_name_plural": "operations",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("state", "running")),
                        fields=["id"],
                        name="messaging_operation_running",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Receipt",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("bucket", models.BigIntegerField()),
                ("count", models.IntegerField(verbose_name="messages")),
                ("outcome", models.CharField(max_length=12, verbose_name="outcome")),
                ("worker", models.CharField(max_length=150, verbose_name="by")),
                ("duration", models.FloatField(help_text="seconds", verbose_name="duration")),
                (
                    "acknowledged_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="acknowledged at",
                    ),
                ),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.queue",
                    ),
                ),
            ],
            options={
                "verbose_name": "receipt",
                "verbose_name_plural": "receipts",
                "ordering": ["id"],
                "indexes": [models.Index(fields=["bucket"], name="messaging_receipt_bucket")],
            },
        ),
        migrations.CreateModel(
            name="Schedule",
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
                ("body", models.JSONField(blank=True, null=True, verbose_name="body")),
                ("headers", models.JSONField(blank=True, default=dict, verbose_name="headers")),
                ("priority", models.SmallIntegerField(default=0, verbose_name="priority")),
                (
                    "cron",
                    models.CharField(
                        blank=True,
                        help_text="Minute, hour, day of month, month, day of week, such as “0 6 * * MON-FRI”.",
                        max_length=100,
                        verbose_name="cron expression",
                    ),
                ),
                (
                    "every",
                    models.FloatField(
                        blank=True, help_text="seconds", null=True, verbose_name="every"
                    ),
                ),
                (
                    "time_zone",
                    models.CharField(default="UTC", max_length=64, verbose_name="time zone"),
                ),
                (
                    "catch_up",
                    models.CharField(
                        choices=[
                            ("skip", "skip: none of those that were missed"),
                            ("last", "last: one, for the last that was missed"),
                            ("all", "all: one for each that was missed"),
                        ],
                        default="last",
                        max_length=4,
                        verbose_name="catch up",
                    ),
                ),
                (
                    "paused_at",
                    models.DateTimeField(
                        blank=True, editable=False, null=True, verbose_name="paused at"
                    ),
                ),
                (
                    "paused_by",
                    models.CharField(
                        blank=True, editable=False, max_length=150, verbose_name="paused by"
                    ),
                ),
                (
                    "next_at",
                    models.DateTimeField(
                        blank=True, editable=False, null=True, verbose_name="next run"
                    ),
                ),
                (
                    "last_at",
                    models.DateTimeField(
                        blank=True, editable=False, null=True, verbose_name="last run"
                    ),
                ),
                ("last_message_id", models.BigIntegerField(editable=False, null=True)),
                (
                    "failed",
                    models.PositiveIntegerField(
                        db_default=0, default=0, editable=False, verbose_name="failed runs"
                    ),
                ),
                (
                    "last_error",
                    models.TextField(
                        blank=True, db_default="", editable=False, verbose_name="last error"
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
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="messaging.queue",
                        verbose_name="queue",
                    ),
                ),
                (
                    "topic",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="messaging.topic",
                        verbose_name="topic",
                    ),
                ),
            ],
            options={
                "verbose_name": "schedule",
                "verbose_name_plural": "schedules",
                "ordering": ["name"],
                "permissions": [("run_schedule", "Can run and pause schedules")],
                "indexes": [models.Index(fields=["next_at"], name="messaging_schedule_next")],
            },
        ),
        migrations.AddConstraint(
            model_name="schema",
            constraint=models.UniqueConstraint(
                fields=("topic", "version"), name="messaging_schema_once"
            ),
        ),
        migrations.RunSQL(RECEIPT, RECEIPT_BACK),
    ]
