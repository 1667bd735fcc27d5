"""Check: what is misconfigured, each with the remedy."""

import math
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ValidationError
from django.core.management import get_commands
from django.db import connections

from . import conf
from .addresses import is_allowance
from .consuming import declarations
from .exceptions import InvalidSecret
from .signing_keys import keys_of
from .store import doctoring
from .store.pooling import is_pooled
from .store.webhooks import described

MINIMUM_POSTGRESQL = 15


def check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    """Report keys of MESSAGING that mean nothing, values out of range, and a wrong database."""
    found: list[checks.CheckMessage] = []
    messaging = getattr(settings, "MESSAGING", None)
    if messaging is not None and not isinstance(messaging, dict):
        found.append(
            checks.Error(
                f"MESSAGING is a {type(messaging).__name__}.",
                hint="Use a dict of settings, or leave it out.",
                id="messaging.E007",
            )
        )
    for key, close in conf.unknown_settings().items():
        hint = f"Did you mean {close!r}?" if close else f"Known: {', '.join(conf.DEFAULTS)}."
        found.append(
            checks.Error(f"Unknown setting MESSAGING[{key!r}].", hint=hint, id="messaging.E001")
        )
    for key in ("MAX_BODY_BYTES", "MAX_HEADERS_BYTES", "POLL_INTERVAL"):
        value = getattr(conf, key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            found.append(
                checks.Error(
                    f"MESSAGING[{key!r}] is {value!r}.",
                    hint=f"Use a number above 0; the default is {conf.DEFAULTS[key]!r}.",
                    id="messaging.E002",
                )
            )
    for key, kind, remedy in (
        ("LISTEN_URL", str | None, "Use a connection URL, or None"),
        ("PREPARE_STATEMENTS", bool | None, "Use True, False or None"),
    ):
        value = getattr(conf, key)
        if not isinstance(value, kind):
            found.append(
                checks.Error(
                    f"MESSAGING[{key!r}] is {type(value).__name__}.",
                    hint=f"{remedy}; the default is {conf.DEFAULTS[key]!r}.",
                    id="messaging.E002",
                )
            )
    alias = conf.DATABASE
    if alias not in settings.DATABASES:
        found.append(
            checks.Error(
                f"MESSAGING['DATABASE'] is {alias!r}, which is not in DATABASES.",
                hint=f"Known: {', '.join(settings.DATABASES)}.",
                id="messaging.E003",
            )
        )
    elif connections[alias].vendor != "postgresql":
        found.append(
            checks.Error(
                f"DATABASES[{alias!r}] is {connections[alias].vendor}; messages need PostgreSQL.",
                hint=f"Use PostgreSQL {MINIMUM_POSTGRESQL} or newer, or set MESSAGING['DATABASE'].",
                id="messaging.E004",
            )
        )
    return found


def check_declarations(**kwargs: Any) -> list[checks.CheckMessage]:
    """Report policies in code that the rows made from them could not hold."""
    from .models import Queue, Topic

    declared: list[Queue | Topic] = [
        *(Queue(name=name, **values) for name, values in declarations.queues.items()),
        *(Topic(name=name, **values) for name, values in declarations.topics.items()),
    ]
    found: list[checks.CheckMessage] = []
    for row in declared:
        try:
            row.clean_fields()
            row.clean()
        except ValidationError as error:
            found += [
                checks.Error(
                    f"The {row._meta.verbose_name} {row.name!r} is declared with "
                    f"{policy}={getattr(row, policy, None)!r}: {' '.join(reasons)}",
                    hint="Change the declaration in code; the row is made from it.",
                    id="messaging.E008",
                )
                for policy, reasons in error.message_dict.items()
            ]
    return found


def check_worker_command(**kwargs: Any) -> list[checks.CheckMessage]:
    """Report that Channels' command of the same name hides ours."""
    owner = get_commands().get("runworker")
    if not apps.is_installed("channels") or owner in ("messaging", None):
        return []
    return [
        checks.Warning(
            f"`manage.py runworker` is the command of {owner!r}, not of messaging.",
            hint="Put 'messaging' above 'channels' in INSTALLED_APPS, or use `messagingworker`.",
            id="messaging.W001",
        )
    ]


def check_channel_layer(**kwargs: Any) -> list[checks.CheckMessage]:
    """Report that the live page has no channel layer, or that its layer is this process's alone."""
    if not apps.is_installed("channels"):
        return []
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get("default")
    if layer is None:
        return [
            checks.Warning(
                "Channels is installed, and CHANNEL_LAYERS has no 'default': the live page has no "
                "socket and polls instead.",
                hint="Add 'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}; the "
                "live page needs no more.",
                id="messaging.W004",
            )
        ]
    if settings.DEBUG or not str(layer.get("BACKEND")).endswith(".InMemoryChannelLayer"):
        return []
    return [
        checks.Warning(
            "CHANNEL_LAYERS['default'] is an InMemoryChannelLayer with DEBUG off: it carries "
            "nothing from one process to another.",
            hint="The live page is complete with it, since each ASGI process reads the log "
            "itself. Silence this, unless other consumers of the project send between processes; "
            "those need channels_redis.",
            id="messaging.W005",
        )
    ]


def check_webhook_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    """Report secrets that cannot sign, without showing any, and hosts that name nothing."""
    found: list[checks.CheckMessage] = []
    for key, kind, wanted in (
        ("WEBHOOK_SECRETS", dict, "a dict of names to secrets"),
        ("WEBHOOK_ALLOWED_HOSTS", list | tuple, "a list of names, '.domains' and networks"),
    ):
        if not isinstance(getattr(conf, key), kind):
            found.append(
                checks.Error(
                    f"MESSAGING[{key!r}] is {type(getattr(conf, key)).__name__}.",
                    hint=f"Use {wanted}.",
                    id="messaging.E002",
                )
            )
    if found:
        return found
    for name in conf.WEBHOOK_SECRETS:
        try:
            keys_of(name)
        except InvalidSecret as error:
            found.append(
                checks.Error(
                    str(error),
                    hint='Make one: python -c "import base64, secrets; '
                    "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\"",
                    id="messaging.E010",
                )
            )
    found += [
        checks.Error(
            f"MESSAGING['WEBHOOK_ALLOWED_HOSTS'] has {entry!r}.",
            hint="Use names such as 'hooks.internal', domains such as '.internal', and networks "
            "such as '10.1.0.0/16'.",
            id="messaging.E011",
        )
        for entry in conf.WEBHOOK_ALLOWED_HOSTS
        if not is_allowance(entry)
    ]
    return found


def check_rq_serializers(**kwargs: Any) -> list[checks.CheckMessage]:
    """Report queues of django-rq whose jobs are pickles, which run code as they are read."""
    if not apps.is_installed("django_rq"):
        return []
    return [
        checks.Error(
            f"RQ_QUEUES[{name!r}] reads jobs with pickle: whoever can write to Redis runs code in "
            f"the workers.",
            hint=f"Set RQ_QUEUES[{name!r}]['SERIALIZER'] = 'rq.serializers.JSONSerializer', once "
            f"the jobs that wait are done.",
            id="messaging.E009",
        )
        for name, queue in getattr(settings, "RQ_QUEUES", {}).items()
        if _is_pickle(queue.get("SERIALIZER"))
    ]


def _is_pickle(serializer: Any) -> bool:
    """Tell whether RQ takes this for pickle, which it does for nothing at all too."""
    if isinstance(serializer, str):
        name = serializer.rpartition(".")[2]
        return name in ("", "pickle", "DefaultSerializer", "PickleSerializer")
    loads = getattr(serializer, "loads", None)
    return serializer is None or getattr(loads, "__module__", None) in ("pickle", "_pickle")


def check_database(databases: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Report what the database server cannot promise (``check --database``)."""
    alias = conf.DATABASE
    if alias not in (databases or ()) or connections[alias].vendor != "postgresql":
        return []
    found: list[checks.CheckMessage] = []
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version_num')::int, current_setting('fsync'), "
            "current_setting('full_page_writes'), current_setting('synchronous_commit'), "
            "pg_is_in_recovery(), pg_backend_pid()"
        )
        version, fsync, full_page_writes, synchronous_commit, replica, backend = cursor.fetchone()
    if version // 10_000 < MINIMUM_POSTGRESQL:
        found.append(
            checks.Error(
                f"PostgreSQL {version // 10_000} is too old.",
                hint=f"Use PostgreSQL {MINIMUM_POSTGRESQL} or newer.",
                id="messaging.E005",
            )
        )
    unsafe = {
        "fsync": fsync,
        "full_page_writes": full_page_writes,
        "synchronous_commit": synchronous_commit,
    }
    for name, value in unsafe.items():
        if value == "off":
            found.append(
                checks.Warning(
                    f"PostgreSQL runs with {name} = off: a crash of the server loses messages.",
                    hint=f"Set {name} = on.",
                    id="messaging.W002",
                )
            )
    if not conf.LISTEN_URL and is_pooled(connections[alias].connection, backend):
        found.append(
            checks.Warning(
                f"DATABASES[{alias!r}] goes through a pooler: workers hear no wake-ups and poll "
                f"every {conf.POLL_INTERVAL:g} seconds.",
                hint="Set MESSAGING['LISTEN_URL'] to a direct connection.",
                id="messaging.W003",
            )
        )
    if replica:
        found.append(
            checks.Error(
                f"DATABASES[{alias!r}] is a read-only replica.",
                hint="Point it at the primary.",
                id="messaging.E006",
            )
        )
    return found


def check_long_handlers(databases: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Report that the server would end handlers' transactions (``check --database``)."""
    alias = conf.DATABASE
    if alias not in (databases or ()) or connections[alias].vendor != "postgresql":
        return []
    limit = doctoring.server(connections[alias]).idle_timeout
    if limit <= 0:
        return []
    return [
        checks.Warning(
            f"PostgreSQL runs with idle_in_transaction_session_timeout = {limit:g} seconds, and "
            f"the handler of queue {consumer.queue!r} may take "
            f"{f'{consumer.hard_timeout:g} seconds' if consumer.hard_timeout else 'any time'}.",
            hint="Set a longer idle_in_transaction_session_timeout for the workers' role, or a "
            "shorter timeout of the consumer.",
            id="messaging.W006",
        )
        for consumer in declarations.consumers.values()
        if not consumer.is_leased
        and (consumer.hard_timeout is None or consumer.hard_timeout > limit)
    ]


def check_unlogged_tables(databases: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Report tables that a crash of the server would empty (``check --database``)."""
    alias = conf.DATABASE
    if alias not in (databases or ()) or connections[alias].vendor != "postgresql":
        return []
    return [
        checks.Warning(
            f"Table {table} is unlogged: a crash of the server empties it.",
            hint=f"Run ALTER TABLE {table} SET LOGGED.",
            id="messaging.W007",
        )
        for table in doctoring.unlogged_tables(connections[alias])
    ]


def check_webhooks(databases: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Report webhooks that nothing can be sent to (``check --database``)."""
    alias = conf.DATABASE
    if alias not in (databases or ()) or connections[alias].vendor != "postgresql":
        return []
    webhooks = described(connections[alias])
    found: list[checks.CheckMessage] = []
    if webhooks and not all(find_spec(name) for name in ("httpx2", "standardwebhooks")):
        found.append(
            checks.Error(
                "There are webhooks, and the packages that send them are not installed.",
                hint="Run pip install 'messaging-postgres[webhooks]'.",
                id="messaging.E012",
            )
        )
    for webhook in webhooks:
        if webhook.secret not in conf.WEBHOOK_SECRETS:
            found.append(
                checks.Error(
                    f"Webhook {webhook.name!r} is signed with {webhook.secret!r}, which is not in "
                    f"MESSAGING['WEBHOOK_SECRETS'].",
                    hint="Add the secret, or name another one.",
                    id="messaging.E013",
                )
            )
        if consumer := declarations.consumers.get(webhook.queue):
            found.append(
                checks.Warning(
                    f"Queue {webhook.queue!r} has a webhook, {webhook.name!r}, and a consumer, "
                    f"{consumer.place}, which gets all messages.",
                    hint="Give the webhook another queue, which subscribes to the same topics.",
                    id="messaging.W008",
                )
            )
    return found


OF_SETTINGS = (
    check_settings,
    check_declarations,
    check_worker_command,
    check_channel_layer,
    check_rq_serializers,
    check_webhook_settings,
)
OF_DATABASE = (check_database, check_long_handlers, check_unlogged_tables, check_webhooks)
