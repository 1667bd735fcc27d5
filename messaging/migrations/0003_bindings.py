"""Keep the bindings of topics and subscriptions right, whoever writes them and however."""

from django.db import migrations

# The same as messaging.names.pattern_regex: matches '.' || topic.
REGEX = r"""
    CREATE FUNCTION messaging_pattern_regex(pattern text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT '^' || replace(replace(replace(replace(replace(
            '.' || pattern, '.#', '@'), '.*', '+'), '.', '\.'), '+', '\.[^.]+'), '@', '(\.[^.]+)*')
            || '$'
    $$;
"""

# The lock makes a topic and a subscription that are created at the same time see each other: the
# second one's statement runs after the first has committed, on a new snapshot.
BIND = """
    CREATE FUNCTION messaging_bind_subscription() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtext('messaging_binding'), 0);
        IF TG_OP <> 'INSERT' THEN
            DELETE FROM messaging_binding WHERE subscription_id = OLD.id;
        END IF;
        IF TG_OP <> 'DELETE' AND NEW.is_active THEN
            INSERT INTO messaging_binding (topic_id, subscription_id, queue_id)
            SELECT topic.id, NEW.id, NEW.queue_id FROM messaging_topic AS topic
            WHERE '.' || topic.name ~ messaging_pattern_regex(NEW.pattern)
            ON CONFLICT DO NOTHING;
        END IF;
        RETURN NULL;
    END $$;

    CREATE TRIGGER messaging_bind_subscription
    AFTER INSERT OR DELETE OR UPDATE OF pattern, queue_id, is_active ON messaging_subscription
    FOR EACH ROW EXECUTE FUNCTION messaging_bind_subscription();

    CREATE FUNCTION messaging_bind_topic() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtext('messaging_binding'), 0);
        IF TG_OP <> 'INSERT' THEN
            DELETE FROM messaging_binding WHERE topic_id = OLD.id;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO messaging_binding (topic_id, subscription_id, queue_id)
            SELECT NEW.id, subscription.id, subscription.queue_id
            FROM messaging_subscription AS subscription
            WHERE subscription.is_active
              AND '.' || NEW.name ~ messaging_pattern_regex(subscription.pattern)
            ON CONFLICT DO NOTHING;
        END IF;
        RETURN NULL;
    END $$;

    CREATE TRIGGER messaging_bind_topic
    AFTER INSERT OR DELETE OR UPDATE OF name ON messaging_topic
    FOR EACH ROW EXECUTE FUNCTION messaging_bind_topic();
"""
BIND_BACK = """
    DROP TRIGGER messaging_bind_topic ON messaging_topic;
    DROP FUNCTION messaging_bind_topic();
    DROP TRIGGER messaging_bind_subscription ON messaging_subscription;
    DROP FUNCTION messaging_bind_subscription();
"""


class Migration(migrations.Migration):
    dependencies = [("messaging", "0002_hot_tables")]

    operations = [
        migrations.RunSQL(REGEX, "DROP FUNCTION messaging_pattern_regex(text)"),
        migrations.RunSQL(BIND, BIND_BACK),
    ]
