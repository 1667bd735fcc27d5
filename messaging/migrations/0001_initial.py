# The tables, as the models say.

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
import messaging.models.configuration
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Queue",
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
                        help_text="Letters, digits, “_”, “-” and “.”. Senders use this name.",
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
                    "max_deliveries",
                    models.PositiveSmallIntegerField(
                        default=5,
                        help_text="After this many failed deliveries a message becomes a dead letter.",
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(1000),
                        ],
                        verbose_name="max deliveries",
                    ),
                ),
                (
                    "backoff",
                    models.CharField(
                        choices=[
                            ("fixed", "fixed: the base every time"),
                            ("linear", "linear: base, 2 × base, 3 × base, ..."),
                            ("exponential", "exponential: base, 2 × base, 4 × base, ..."),
                            ("list", "list: the delays given, the last one repeated"),
                        ],
                        default="exponential",
                        help_text="How the wait before the next delivery grows with each failure.",
                        max_length=12,
                        verbose_name="back-off",
                    ),
                ),
                (
                    "backoff_base",
                    models.FloatField(
                        default=10,
                        help_text="Seconds to wait after the first failure.",
                        validators=[
                            django.core.validators.MinValueValidator(0),
                            django.core.validators.MaxValueValidator(31622400),
                        ],
                        verbose_name="back-off base",
                    ),
                ),
                (
                    "backoff_cap",
                    models.FloatField(
                        default=600,
                        help_text="Seconds: no wait is longer than this.",
                        validators=[
                            django.core.validators.MinValueValidator(0),
                            django.core.validators.MaxValueValidator(31622400),
                        ],
                        verbose_name="back-off cap",
                    ),
                ),
                (
                    "backoff_delays",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text="For the back-off “list”: seconds, such as [1, 10, 60].",
                        validators=[messaging.models.configuration.validate_delays],
                        verbose_name="back-off delays",
                    ),
                ),
                (
                    "jitter",
                    models.CharField(
                        choices=[
                            ("full", "full: a random time between 0 and the delay"),
                            ("none", "none: the delay exactly"),
                        ],
                        default="full",
                        help_text="Spreads retries, so that what failed together does not return together.",
                        max_length=4,
                        verbose_name="jitter",
                    ),
                ),
                (
                    "deduplication_window",
                    models.PositiveIntegerField(
                        blank=True,
                        default=300,
                        help_text="Seconds during which a deduplication id counts. 0: off. Empty: for ever.",
                        null=True,
                        verbose_name="deduplication window",
                    ),
                ),
                (
                    "retention",
                    models.PositiveIntegerField(
                        default=604800,
                        help_text="Seconds for which the log keeps messages that nobody waits for any more. 0: gone with the acknowledgement.",
                        verbose_name="retention",
                    ),
                ),
                (
                    "content_based_deduplication",
                    models.BooleanField(
                        default=False,
                        help_text="A message without a deduplication id is identified by its body.",
                        verbose_name="content-based deduplication",
                    ),
                ),
                (
                    "message_ttl",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds after which a waiting message expires. Empty: never.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(0.001),
                            django.core.validators.MaxValueValidator(249134400000),
                        ],
                        verbose_name="message time to live",
                    ),
                ),
                (
                    "dead_letter_expired",
                    models.BooleanField(
                        default=False,
                        help_text="Expired messages become dead letters instead of vanishing.",
                        verbose_name="keep expired messages",
                    ),
                ),
                (
                    "visibility_timeout",
                    models.FloatField(
                        default=30,
                        help_text="Seconds for which receive() and leased consumers hold a message.",
                        validators=[
                            django.core.validators.MinValueValidator(0),
                            django.core.validators.MaxValueValidator(43200),
                        ],
                        verbose_name="visibility timeout",
                    ),
                ),
                (
                    "max_length",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="How many messages may wait. Empty: any number.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                        verbose_name="max length",
                    ),
                ),
                (
                    "overflow",
                    models.CharField(
                        choices=[
                            ("reject", "reject: sending raises QueueFull"),
                            ("drop_oldest", "drop oldest: what has waited longest is deleted"),
                            (
                                "dead_letter_oldest",
                                "dead-letter oldest: what has waited longest dies",
                            ),
                        ],
                        default="reject",
                        help_text="What happens to a message more than the max length.",
                        max_length=20,
                        verbose_name="overflow",
                    ),
                ),
                (
                    "rate_limit",
                    models.FloatField(
                        blank=True,
                        help_text="Messages a second over all workers. Empty: any number.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(0.001),
                            django.core.validators.MaxValueValidator(1000000),
                        ],
                        verbose_name="rate limit",
                    ),
                ),
                (
                    "key_rate_limit",
                    models.FloatField(
                        blank=True,
                        help_text="Messages a second and ordering key over all workers. Empty: any number.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(0.001),
                            django.core.validators.MaxValueValidator(1000000),
                        ],
                        verbose_name="rate limit per ordering key",
                    ),
                ),
                (
                    "concurrency_limit",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Messages in flight at once over all workers. Empty: any number.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(10000),
                        ],
                        verbose_name="concurrency limit",
                    ),
                ),
                (
                    "single_active_consumer",
                    models.BooleanField(
                        default=False,
                        help_text="One worker consumes; another takes over when it is gone.",
                        verbose_name="single active consumer",
                    ),
                ),
                (
                    "weight",
                    models.PositiveSmallIntegerField(
                        default=1,
                        help_text="This queue's share of a worker that serves several queues.",
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(100),
                        ],
                        verbose_name="weight",
                    ),
                ),
                (
                    "on_failure",
                    models.CharField(
                        choices=[
                            ("block", "block: the key waits for the retry"),
                            ("skip", "skip: the key goes on, this message comes later"),
                            (
                                "park",
                                "park: like block, and a dead letter sets the rest of its key aside",
                            ),
                        ],
                        default="block",
                        help_text="What a failing message does to the others of its ordering key.",
                        max_length=8,
                        verbose_name="ordering key on failure",
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
                    "pause_reason",
                    models.CharField(
                        blank=True, editable=False, max_length=200, verbose_name="pause reason"
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
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        editable=False,
                        verbose_name="created at",
                    ),
                ),
                (
                    "dead_letter_queue",
                    models.ForeignKey(
                        blank=True,
                        help_text="Where dead letters are held. Empty: under this queue itself.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="dead_letter_sources",
                        to="messaging.queue",
                        verbose_name="dead-letter queue",
                    ),
                ),
            ],
            options={
                "verbose_name": "queue",
                "verbose_name_plural": "queues",
                "ordering": ["name"],
                "permissions": [
                    ("pause_queue", "Can pause and resume queues"),
                    ("purge_queue", "Can purge queues"),
                    ("consume_queue", "Can receive from queues"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Topic",
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
                        help_text="Words separated by dots, such as “orders.placed”. Publishers use this name.",
                        max_length=80,
                        unique=True,
                        validators=[messaging.models.configuration.validate_topic_name],
                        verbose_name="name",
                    ),
                ),
                (
                    "description",
                    models.CharField(blank=True, max_length=200, verbose_name="description"),
                ),
                (
                    "deduplication_window",
                    models.PositiveIntegerField(
                        blank=True,
                        default=300,
                        help_text="Seconds during which a deduplication id counts. 0: off. Empty: for ever.",
                        null=True,
                        verbose_name="deduplication window",
                    ),
                ),
                (
                    "content_based_deduplication",
                    models.BooleanField(
                        default=False,
                        help_text="A message without a deduplication id is identified by its body.",
                        verbose_name="content-based deduplication",
                    ),
                ),
                (
                    "retention",
                    models.PositiveIntegerField(
                        default=604800,
                        help_text="Seconds for which the log keeps messages that nobody waits for any more. 0: gone with the acknowledgement.",
                        verbose_name="retention",
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
            ],
            options={
                "verbose_name": "topic",
                "verbose_name_plural": "topics",
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Worker",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=150, unique=True, verbose_name="name")),
                ("host", models.CharField(max_length=100, verbose_name="host")),
                ("pid", models.IntegerField(verbose_name="process")),
                ("version", models.CharField(max_length=20, verbose_name="version")),
                ("queues", models.JSONField(verbose_name="queues")),
                ("threads", models.SmallIntegerField(verbose_name="threads")),
                (
                    "running",
                    models.JSONField(
                        help_text="Queue → messages in flight.", verbose_name="running"
                    ),
                ),
                ("handled", models.BigIntegerField(verbose_name="handled")),
                ("failed", models.BigIntegerField(verbose_name="failed")),
                ("state", models.CharField(max_length=10, verbose_name="state")),
                ("started_at", models.DateTimeField(verbose_name="started at")),
                ("seen_at", models.DateTimeField(verbose_name="last heartbeat")),
            ],
            options={
                "verbose_name": "worker",
                "verbose_name_plural": "workers",
                "ordering": ["name"],
                "permissions": [("control_worker", "Can stop and pause workers")],
            },
        ),
        migrations.CreateModel(
            name="ActiveConsumer",
            fields=[
                (
                    "queue",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="messaging.queue",
                    ),
                ),
                ("worker", models.CharField(max_length=150)),
                ("until", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Room",
            fields=[
                (
                    "queue",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="messaging.queue",
                    ),
                ),
                ("free", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Deduplication",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("scope", models.CharField(max_length=24)),
                ("key", models.CharField(max_length=200)),
                ("message_id", models.BigIntegerField()),
                ("digest", models.BinaryField()),
                ("expires_at", models.DateTimeField(null=True)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["expires_at"], name="messaging_deduplication_end")
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("scope", "key"), name="messaging_deduplication_once"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Idempotency",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("scope", models.CharField(max_length=80, verbose_name="scope")),
                ("key", models.CharField(max_length=200, verbose_name="key")),
                ("result", models.JSONField(null=True, verbose_name="result")),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="created at",
                    ),
                ),
                ("expires_at", models.DateTimeField(null=True, verbose_name="expires at")),
            ],
            options={
                "verbose_name": "idempotency record",
                "verbose_name_plural": "idempotency records",
                "indexes": [models.Index(fields=["expires_at"], name="messaging_idempotency_end")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("scope", "key"), name="messaging_idempotency_once"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "ordering_key",
                    models.CharField(max_length=200, null=True, verbose_name="ordering key"),
                ),
                (
                    "fairness_key",
                    models.CharField(max_length=200, null=True, verbose_name="fairness key"),
                ),
                ("headers", models.JSONField(verbose_name="headers")),
                ("body", models.JSONField(null=True, verbose_name="body")),
                (
                    "published_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="published at",
                    ),
                ),
                (
                    "correlation_id",
                    models.CharField(max_length=200, null=True, verbose_name="correlation id"),
                ),
                ("causation_id", models.BigIntegerField(null=True, verbose_name="causation id")),
                ("reply_to", models.CharField(max_length=80, null=True, verbose_name="reply to")),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="messaging.queue",
                    ),
                ),
                (
                    "topic",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="messaging.topic",
                    ),
                ),
            ],
            options={
                "verbose_name": "message",
                "verbose_name_plural": "messages",
                "ordering": ["-id"],
                "permissions": [
                    ("publish_message", "Can publish messages"),
                    ("view_payload", "Can view bodies and headers of messages"),
                    ("edit_message", "Can edit messages"),
                    ("export_message", "Can export messages"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Subscription",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "pattern",
                    models.CharField(
                        help_text="“orders.placed”; “orders.*”: one word; “orders.#”: any number of words.",
                        max_length=80,
                        validators=[messaging.models.configuration.validate_pattern],
                        verbose_name="topic or pattern",
                    ),
                ),
                (
                    "is_active",
                    models.BooleanField(
                        default=True,
                        help_text="Inactive: new messages do not go to the queue.",
                        verbose_name="active",
                    ),
                ),
                (
                    "description",
                    models.CharField(blank=True, max_length=200, verbose_name="description"),
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
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="subscriptions",
                        to="messaging.queue",
                        verbose_name="queue",
                    ),
                ),
            ],
            options={
                "verbose_name": "subscription",
                "verbose_name_plural": "subscriptions",
                "ordering": ["pattern", "queue__name"],
            },
        ),
        migrations.CreateModel(
            name="Scheduled",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("priority", models.SmallIntegerField(verbose_name="priority")),
                ("attempt", models.SmallIntegerField(verbose_name="attempt")),
                ("expires_at", models.DateTimeField(null=True, verbose_name="expires at")),
                ("lane_id", models.BigIntegerField(null=True)),
                ("due_at", models.DateTimeField(verbose_name="due at")),
                ("joins_lane", models.BooleanField(db_default=False, default=False)),
                (
                    "message",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.message",
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
                (
                    "subscription",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.subscription",
                    ),
                ),
            ],
            options={
                "verbose_name": "scheduled delivery",
                "verbose_name_plural": "scheduled deliveries",
            },
        ),
        migrations.CreateModel(
            name="Lease",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("priority", models.SmallIntegerField(verbose_name="priority")),
                ("attempt", models.SmallIntegerField(verbose_name="attempt")),
                ("expires_at", models.DateTimeField(null=True, verbose_name="expires at")),
                ("lane_id", models.BigIntegerField(null=True)),
                ("token", models.BigIntegerField(verbose_name="token")),
                ("worker", models.CharField(max_length=150, verbose_name="worker")),
                ("entry_id", models.BigIntegerField(null=True)),
                (
                    "leased_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="leased at",
                    ),
                ),
                ("leased_until", models.DateTimeField(verbose_name="leased until")),
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
                (
                    "message",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.message",
                    ),
                ),
                (
                    "subscription",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.subscription",
                    ),
                ),
            ],
            options={
                "verbose_name": "lease",
                "verbose_name_plural": "leases",
            },
        ),
        migrations.CreateModel(
            name="LaneEntry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("lane_id", models.BigIntegerField()),
                ("priority", models.SmallIntegerField(verbose_name="priority")),
                ("attempt", models.SmallIntegerField(verbose_name="attempt")),
                ("expires_at", models.DateTimeField(null=True, verbose_name="expires at")),
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
                (
                    "message",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.message",
                    ),
                ),
                (
                    "subscription",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.subscription",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("priority", models.SmallIntegerField(verbose_name="priority")),
                ("attempt", models.SmallIntegerField(verbose_name="attempt")),
                ("expires_at", models.DateTimeField(null=True, verbose_name="expires at")),
                ("lane_id", models.BigIntegerField(null=True)),
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
                (
                    "message",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.message",
                    ),
                ),
                (
                    "subscription",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.subscription",
                    ),
                ),
            ],
            options={
                "verbose_name": "delivery",
                "verbose_name_plural": "deliveries",
            },
        ),
        migrations.CreateModel(
            name="Arrival",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.SmallIntegerField(choices=[(0, "ordering key"), (1, "fairness key")]),
                ),
                ("key", models.CharField(max_length=200)),
                ("priority", models.SmallIntegerField()),
                ("attempt", models.SmallIntegerField()),
                ("expires_at", models.DateTimeField(null=True)),
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
                (
                    "message",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.message",
                    ),
                ),
                (
                    "subscription",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.subscription",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("message_id", models.BigIntegerField(verbose_name="message id")),
                ("subscription_id", models.BigIntegerField(null=True)),
                ("priority", models.SmallIntegerField(verbose_name="priority")),
                (
                    "ordering_key",
                    models.CharField(max_length=200, null=True, verbose_name="ordering key"),
                ),
                (
                    "fairness_key",
                    models.CharField(max_length=200, null=True, verbose_name="fairness key"),
                ),
                ("entry_id", models.BigIntegerField(null=True)),
                (
                    "correlation_id",
                    models.CharField(max_length=200, null=True, verbose_name="correlation id"),
                ),
                ("causation_id", models.BigIntegerField(null=True, verbose_name="causation id")),
                ("reply_to", models.CharField(max_length=80, null=True, verbose_name="reply to")),
                ("headers", models.JSONField(verbose_name="headers")),
                ("body", models.JSONField(null=True, verbose_name="body")),
                ("published_at", models.DateTimeField(verbose_name="published at")),
                ("attempts", models.SmallIntegerField(verbose_name="deliveries")),
                (
                    "reason",
                    models.CharField(
                        choices=[
                            ("rejected", "rejected"),
                            ("max_deliveries", "max deliveries"),
                            ("worker_died", "worker died"),
                            ("expired", "expired"),
                            ("max_length", "max length"),
                            ("timeout", "timeout"),
                            ("no_consumer", "no consumer"),
                            ("undecodable", "undecodable"),
                            ("manual", "manual"),
                        ],
                        max_length=16,
                        verbose_name="reason",
                    ),
                ),
                ("description", models.TextField(blank=True, verbose_name="description")),
                ("error", models.CharField(blank=True, max_length=200, verbose_name="error")),
                ("traceback", models.TextField(blank=True, verbose_name="traceback")),
                ("fingerprint", models.CharField(max_length=32, verbose_name="fingerprint")),
                (
                    "died_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), verbose_name="died at"
                    ),
                ),
                (
                    "origin",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        help_text="The queue whose consumer failed.",
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.queue",
                        verbose_name="from queue",
                    ),
                ),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        help_text="The dead-letter queue.",
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.queue",
                        verbose_name="held in",
                    ),
                ),
                (
                    "topic",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="messaging.topic",
                    ),
                ),
            ],
            options={
                "verbose_name": "dead letter",
                "verbose_name_plural": "dead letters",
                "ordering": ["-id"],
                "permissions": [("redrive_deadletter", "Can redrive dead letters")],
            },
        ),
        migrations.CreateModel(
            name="Binding",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="messaging.queue",
                    ),
                ),
                (
                    "subscription",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="messaging.subscription",
                    ),
                ),
                (
                    "topic",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="messaging.topic",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Attempt",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("message_id", models.BigIntegerField(verbose_name="message id")),
                ("attempt", models.SmallIntegerField(verbose_name="attempt")),
                ("outcome", models.CharField(max_length=16, verbose_name="outcome")),
                ("error", models.CharField(max_length=200, verbose_name="error")),
                ("description", models.TextField(blank=True, verbose_name="description")),
                ("traceback", models.TextField(blank=True, verbose_name="traceback")),
                ("worker", models.CharField(max_length=150, verbose_name="worker")),
                ("duration", models.FloatField(help_text="seconds", verbose_name="duration")),
                (
                    "failed_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="failed at",
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
                "verbose_name": "failed attempt",
                "verbose_name_plural": "failed attempts",
                "ordering": ["id"],
                "indexes": [
                    models.Index(fields=["message_id", "id"], name="messaging_attempt_message")
                ],
            },
        ),
        migrations.CreateModel(
            name="Edit",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("message_id", models.BigIntegerField(verbose_name="message id")),
                (
                    "what",
                    models.CharField(
                        db_default="edited", default="edited", max_length=16, verbose_name="what"
                    ),
                ),
                ("headers", models.JSONField(verbose_name="headers before")),
                ("body", models.JSONField(null=True, verbose_name="body before")),
                (
                    "edited_by",
                    models.CharField(blank=True, max_length=150, verbose_name="edited by"),
                ),
                (
                    "edited_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="edited at",
                    ),
                ),
            ],
            options={
                "verbose_name": "edit",
                "verbose_name_plural": "edits",
                "ordering": ["id"],
                "indexes": [
                    models.Index(fields=["message_id", "id"], name="messaging_edit_message")
                ],
            },
        ),
        migrations.CreateModel(
            name="Lane",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.SmallIntegerField(choices=[(0, "ordering key"), (1, "fairness key")]),
                ),
                ("key", models.CharField(max_length=200, verbose_name="key")),
                ("tokens", models.SmallIntegerField(default=1)),
                ("added", models.SmallIntegerField(default=1)),
                ("parked_at", models.DateTimeField(null=True, verbose_name="parked at")),
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
                "verbose_name": "ordering key",
                "verbose_name_plural": "ordering keys",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("queue", "kind", "key"), name="messaging_lane_once"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="RateLimit",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("key", models.CharField(blank=True, default="", max_length=200)),
                ("tokens", models.FloatField()),
                (
                    "filled_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="messaging.queue",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("queue", "key"), name="messaging_rate_limit_once"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Stat",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("process", models.CharField(max_length=150)),
                ("published", models.IntegerField(db_default=0)),
                ("acknowledged", models.IntegerField(db_default=0)),
                ("failed", models.IntegerField(db_default=0)),
                ("dead", models.IntegerField(db_default=0)),
                ("expired", models.IntegerField(db_default=0)),
                (
                    "dropped",
                    models.IntegerField(
                        db_default=0, help_text="Removed by senders, to make room in a full queue."
                    ),
                ),
                ("busy", models.FloatField(db_default=0, help_text="Seconds that handlers ran.")),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="messaging.queue",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["at"], name="messaging_stat_at")],
            },
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.UniqueConstraint(
                fields=("pattern", "queue"), name="messaging_subscription_once"
            ),
        ),
        migrations.AddIndex(
            model_name="scheduled",
            index=models.Index(fields=["due_at", "id"], name="messaging_scheduled_due"),
        ),
        migrations.AddIndex(
            model_name="scheduled",
            index=models.Index(fields=["queue", "due_at", "id"], name="messaging_scheduled_queue"),
        ),
        migrations.AddIndex(
            model_name="scheduled",
            index=models.Index(fields=["message", "lane_id"], name="messaging_scheduled_message"),
        ),
        migrations.AddIndex(
            model_name="lane",
            index=models.Index(
                condition=models.Q(("parked_at__isnull", False)),
                fields=["queue", "id"],
                name="messaging_lane_parked",
            ),
        ),
        migrations.AddIndex(
            model_name="lease",
            index=models.Index(fields=["leased_until"], name="messaging_lease_until"),
        ),
        migrations.AddIndex(
            model_name="lease",
            index=models.Index(fields=["queue", "id"], name="messaging_lease_queue"),
        ),
        migrations.AddConstraint(
            model_name="lease",
            constraint=models.UniqueConstraint(fields=("token",), name="messaging_lease_token"),
        ),
        migrations.AddConstraint(
            model_name="laneentry",
            constraint=models.UniqueConstraint(
                fields=("queue", "lane_id", "id"), name="messaging_lane_entry_next"
            ),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.UniqueConstraint(
                fields=("queue", "priority", "id"), name="messaging_delivery_next"
            ),
        ),
        migrations.AddIndex(
            model_name="deadletter",
            index=models.Index(fields=["queue", "id"], name="messaging_dead_queue"),
        ),
        migrations.AddIndex(
            model_name="deadletter",
            index=models.Index(fields=["origin", "id"], name="messaging_dead_origin"),
        ),
        migrations.AddIndex(
            model_name="deadletter",
            index=models.Index(fields=["fingerprint", "id"], name="messaging_dead_fingerprint"),
        ),
        migrations.AddIndex(
            model_name="deadletter",
            index=models.Index(fields=["message_id"], name="messaging_dead_message"),
        ),
        migrations.AddConstraint(
            model_name="binding",
            constraint=models.UniqueConstraint(
                fields=("topic", "subscription"), name="messaging_binding_once"
            ),
        ),
    ]
