"""What is misconfigured is told by `manage.py check`, with the setting's name and a remedy."""

import pickle

import pytest
from django.core import checks
from django.core.management import CommandError, call_command, get_commands
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder
from rq.serializers import JSONSerializer, PickleSerializer

from messaging import checks as module
from messaging import consumer, declare_queue, declare_topic
from messaging.checks import (
    check_channel_layer,
    check_database,
    check_rq_serializers,
    check_worker_command,
)
from messaging.models import Webhook


def found(databases=()):
    """Return the messages of our checks by their ids."""
    messages = checks.run_checks(databases=databases)
    return {
        message.id: f"{message.msg} {message.hint}"
        for message in messages
        if message.id.startswith("messaging.") and not message.is_silenced()
    }


@pytest.fixture
def alias(monkeypatch):
    """Return a function that adds a database, like the default one but for what is given."""
    added = []

    def add(name, **changes):
        entry = {**connections.settings["default"], **changes}
        monkeypatch.setitem(connections.settings, name, entry)
        added.append(name)

    yield add
    for name in added:
        connections[name].close()
        del connections[name]


class TestSettings:
    def test_nothing_is_found_where_nothing_is_wrong(self, settings):
        del settings.MESSAGING
        assert found() == {}

    def test_an_unknown_key_is_an_error_with_a_suggestion(self, settings):
        settings.MESSAGING = {"MAX_BODY_BYTE": 5}
        assert found() == {
            "messaging.E001": "Unknown setting MESSAGING['MAX_BODY_BYTE']. "
            "Did you mean 'MAX_BODY_BYTES'?"
        }

    def test_where_nothing_is_close_the_known_keys_are_listed(self, settings):
        settings.MESSAGING = {"COLOUR": "red"}
        assert "Known: DATABASE, MAX_BODY_BYTES," in found()["messaging.E001"]

    @pytest.mark.parametrize("key", ["MAX_BODY_BYTES", "MAX_HEADERS_BYTES", "POLL_INTERVAL"])
    @pytest.mark.parametrize(
        "value", [0, -1, "5", None, True, float("nan"), float("inf")], ids=repr
    )
    def test_a_limit_that_is_no_number_above_0_is_an_error(self, settings, key, value):
        settings.MESSAGING = {key: value}
        assert f"MESSAGING[{key!r}] is {value!r}." in found()["messaging.E002"]

    @pytest.mark.parametrize(
        ("key", "value"),
        [("LISTEN_URL", 5), ("LISTEN_URL", False), ("PREPARE_STATEMENTS", "no")],
    )
    def test_a_value_of_the_wrong_kind_is_an_error(self, settings, key, value):
        settings.MESSAGING = {key: value}
        assert f"MESSAGING[{key!r}] is {type(value).__name__}." in found()["messaging.E002"]

    @pytest.mark.parametrize("messaging", [[], "x", ["DATABASE"]], ids=repr)
    def test_settings_that_are_no_dict_are_an_error(self, settings, messaging):
        settings.MESSAGING = messaging
        assert "Use a dict of settings" in found()["messaging.E007"]

    def test_a_database_that_does_not_exist_is_an_error(self, settings):
        settings.MESSAGING = {"DATABASE": "elsewhere"}
        assert "'elsewhere', which is not in DATABASES. Known: default" in found()["messaging.E003"]

    def test_sqlite_is_an_error_that_asks_for_postgresql_15(self, settings, alias):
        alias("lite", ENGINE="django.db.backends.sqlite3", NAME=":memory:")
        settings.MESSAGING = {"DATABASE": "lite"}
        told = found()["messaging.E004"]
        assert "DATABASES['lite'] is sqlite; messages need PostgreSQL" in told
        assert "PostgreSQL 15 or newer" in told
        assert check_database(databases=["lite"]) == []


class TestDeclarations:
    @pytest.mark.parametrize(
        ("policies", "reason"),
        [
            ({"backoff": "list"}, "The back-off “list” needs its delays."),
            ({"backoff": "list", "backoff_delays": [1, -1]}, "-1 is no delay"),
            ({"max_deliveries": 1, "description": "x" * 201}, "description="),
        ],
    )
    def test_a_policy_that_a_queue_could_not_hold_is_an_error(self, declared, policies, reason):
        declare_queue("invoices", **policies)
        told = found()["messaging.E008"]
        assert told.startswith("The queue 'invoices' is declared with ")
        assert reason in told

    def test_a_policy_that_a_topic_could_not_hold_is_an_error(self, declared):
        for value in (-1, "7d"):
            declare_topic("orders.placed", retention=value)
            told = found()["messaging.E008"]
            assert f"The topic 'orders.placed' is declared with retention={value!r}" in told

    def test_good_declarations_are_none(self, declared):
        declare_topic("orders.placed", retention=0, content_based_deduplication=True)
        consumer("invoices", backoff="list", backoff_delays=[1, 10.5], jitter="none")(print)
        assert found() == {}


class TestTheWorkerCommand:
    @pytest.mark.parametrize(
        ("apps", "owner"),
        [
            (["messaging", "channels"], "messaging"),
            (["channels", "messaging"], "channels"),
        ],
    )
    def test_channels_above_messaging_is_a_warning(self, settings, apps, owner):
        settings.INSTALLED_APPS = ["django.contrib.contenttypes", *apps]
        get_commands.cache_clear()
        try:
            assert get_commands()["runworker"] == owner
            assert [message.id for message in check_worker_command()] == (
                ["messaging.W001"] if owner == "channels" else []
            )
        finally:
            get_commands.cache_clear()

    def test_ours_is_found_in_this_project(self):
        assert get_commands()["runworker"] == "messaging"
        assert get_commands()["messagingworker"] == "messaging"


class TestTheChannelLayer:
    IN_MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

    @pytest.fixture(autouse=True)
    def nothing_is_silenced(self, settings):
        settings.SILENCED_SYSTEM_CHECKS = []

    @pytest.mark.parametrize("layers", [{}, {"other": IN_MEMORY["default"]}], ids=["none", "other"])
    def test_channels_without_one_is_a_warning(self, settings, layers):
        settings.CHANNEL_LAYERS = layers
        told = found()
        assert told.keys() == {"messaging.W004"}
        assert "CHANNEL_LAYERS has no 'default': the live page has no socket" in told.popitem()[1]
        del settings.CHANNEL_LAYERS
        assert found().keys() == {"messaging.W004"}

    def test_one_of_each_process_is_a_warning_in_production_alone(self, settings):
        settings.CHANNEL_LAYERS = self.IN_MEMORY
        told = found()
        assert told.keys() == {"messaging.W005"}
        assert "each ASGI process reads the log itself" in told.popitem()[1]
        settings.DEBUG = True
        assert found() == {}

    def test_one_that_processes_share_is_none(self, settings):
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}
        assert found() == {}

    def test_without_channels_none_is_needed(self, settings):
        settings.INSTALLED_APPS = ["django.contrib.contenttypes", "messaging"]
        settings.CHANNEL_LAYERS = {}
        assert check_channel_layer() == []


class TestTheQueuesOfDjangoRq:
    @pytest.mark.parametrize(
        "serializer",
        [
            None,
            "",
            "pickle",
            "rq.serializers.DefaultSerializer",
            "rq.serializers.PickleSerializer",
            PickleSerializer,
            pickle,
        ],
        ids=str,
    )
    def test_jobs_that_are_pickles_are_an_error_that_names_the_queue(self, settings, serializer):
        settings.RQ_QUEUES = {
            "good": {"URL": "", "SERIALIZER": "json"},
            "mails": {"URL": "", "SERIALIZER": serializer},
        }
        told = found()
        assert told.keys() == {"messaging.E009"}
        assert "RQ_QUEUES['mails'] reads jobs with pickle" in told.popitem()[1]

    def test_a_queue_that_says_nothing_pickles(self, settings):
        settings.RQ_QUEUES = {"mails": {"URL": ""}}
        assert found().keys() == {"messaging.E009"}

    @pytest.mark.parametrize(
        "serializer", ["json", "rq.serializers.JSONSerializer", JSONSerializer], ids=str
    )
    def test_jobs_that_are_json_are_none(self, settings, serializer):
        settings.RQ_QUEUES = {"mails": {"URL": "", "SERIALIZER": serializer}}
        assert found() == {}

    def test_without_django_rq_nobody_asks(self, settings):
        settings.INSTALLED_APPS = ["django.contrib.contenttypes", "messaging"]
        settings.RQ_QUEUES = {"mails": {"URL": ""}}
        assert check_rq_serializers() == []


@pytest.mark.django_db
class TestTheServer:
    @pytest.mark.usefixtures("way_past_a_pooler")
    def test_nothing_is_found_on_a_good_one(self):
        assert found(databases=["default"]) == {}

    def test_the_server_is_asked_only_when_its_database_is_checked(self, django_assert_num_queries):
        with django_assert_num_queries(0):
            found()

    def pretend(self, setting, value):
        """Have the server give this answer to `current_setting` in this transaction."""
        with connection.cursor() as cursor:
            cursor.execute(f"""
                CREATE SCHEMA pretended;
                CREATE FUNCTION pretended.current_setting(name text) RETURNS text LANGUAGE sql AS $$
                    SELECT CASE name WHEN '{setting}' THEN '{value}'
                        ELSE pg_catalog.current_setting(name) END $$;
                SET LOCAL search_path = pretended, pg_catalog, public;
            """)

    @pytest.mark.usefixtures("way_past_a_pooler")
    @pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
    def test_a_server_that_may_lose_commits_is_a_warning(self, setting):
        self.pretend(setting, "off")
        assert found(databases=["default"]) == {
            "messaging.W002": f"PostgreSQL runs with {setting} = off: a crash of the server loses "
            f"messages. Set {setting} = on."
        }

    def test_commits_that_wait_for_less_than_the_disk_are_a_warning_in_this_session_too(self):
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
        assert "synchronous_commit = off" in found(databases=["default"])["messaging.W002"]

    def test_a_pooler_without_a_way_around_it_is_a_warning(self, settings, monkeypatch):
        monkeypatch.setattr(module, "is_pooled", lambda raw, backend: raw.info.backend_pid != 0)
        told = found(databases=["default"])["messaging.W003"]
        assert "goes through a pooler" in told
        assert "Set MESSAGING['LISTEN_URL']" in told
        settings.MESSAGING = {"LISTEN_URL": "postgresql://direct/"}
        assert found(databases=["default"]) == {}

    def test_an_old_server_is_an_error(self):
        self.pretend("server_version_num", "140012")
        assert (
            "PostgreSQL 14 is too old. Use PostgreSQL 15"
            in (found(databases=["default"])["messaging.E005"])
        )

    def end_idle_transactions(self, after):
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{after}'")

    @pytest.mark.usefixtures("way_past_a_pooler")
    def test_a_session_that_ends_before_its_handler_is_a_warning(self, declared):
        consumer("quick", timeout=5)(print)
        consumer("leased", lease=60)(print)
        self.end_idle_transactions("20s")
        assert found(databases=["default"]) == {}
        consumer("slow", timeout=60)(print)
        told = found(databases=["default"])["messaging.W006"]
        assert "timeout = 20 seconds" in told
        assert "'slow' may take 70 seconds" in told

    def test_a_handler_without_a_timeout_may_take_any_time(self, declared):
        consumer("endless")(print)
        self.end_idle_transactions("20s")
        assert "'endless' may take any time" in found(databases=["default"])["messaging.W006"]

    def test_a_table_that_a_crash_would_empty_is_a_warning(self):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE messaging_idempotency SET UNLOGGED")
        assert (
            "ALTER TABLE messaging_idempotency SET LOGGED"
            in (found(databases=["default"])["messaging.W007"])
        )

    def test_a_replica_is_an_error(self):
        with connection.cursor() as cursor:
            cursor.execute("""
                CREATE SCHEMA pretended;
                CREATE FUNCTION pretended.pg_is_in_recovery() RETURNS boolean LANGUAGE sql
                    AS 'SELECT true';
                SET LOCAL search_path = pretended, pg_catalog, public;
            """)
        assert "read-only replica" in found(databases=["default"])["messaging.E006"]


@pytest.mark.django_db
class TestMigrations:
    def test_a_worker_ends_before_it_works_on_tables_that_are_not_up_to_date(self, declared):
        consumer("invoices")(print)
        *_, (_, latest) = sorted(
            name
            for name in MigrationRecorder(connection).applied_migrations()
            if name[0] == "messaging"
        )
        MigrationRecorder(connection).record_unapplied("messaging", latest)
        with pytest.raises(CommandError, match="Run migrate first") as refused:
            call_command("runworker", "--drain")
        assert refused.value.returncode == 1


@pytest.mark.django_db
class TestWebhooks:
    @pytest.fixture
    def webhook(self, queue, settings):
        settings.MESSAGING = {"WEBHOOK_SECRETS": {"partner": f"whsec_{'a' * 32}"}}
        return Webhook.objects.create(
            name="partner", queue=queue("hooks"), url="https://a.example/", secret="partner"
        )

    def test_one_that_can_be_sent_is_not_worth_a_word(self, webhook):
        assert not found(databases=["default"]).keys() & {
            "messaging.E010",
            "messaging.E012",
            "messaging.E013",
            "messaging.W008",
        }

    def test_one_without_the_packages_that_send_it_is_an_error(self, webhook, monkeypatch):
        monkeypatch.setattr("messaging.checks.find_spec", lambda name: None)
        told = found(databases=["default"])["messaging.E012"]
        assert "pip install 'messaging-postgres[webhooks]'" in told

    def test_one_whose_secret_is_gone_is_an_error(self, webhook, settings):
        settings.MESSAGING = {}
        assert "signed with 'partner'" in found(databases=["default"])["messaging.E013"]

    def test_one_beside_a_consumer_is_a_warning(self, webhook, declared):
        @consumer("hooks")
        def handle(message): ...

        told = found(databases=["default"])["messaging.W008"]
        assert "Queue 'hooks' has a webhook, 'partner', and a consumer, test_checks." in told
