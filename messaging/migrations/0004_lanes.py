"""Give messages with a key their place when their transaction commits."""

from django.db import migrations

# At the commit, so that ids of a key follow the order of commits, and that its lock is held for no
# longer than the commit takes, whatever else the transaction did and does. One run serves all that
# the transaction has sent and takes the locks in order: no two transactions wait for each other.
# All lanes are in the answer of the statement, so they are locked before it inserts any entry.
# Each row has a call of its own, and what is left to the others after the first must not be a search:
# walking over what the transaction itself deleted, n calls would cost n times n. So a run notes how
# far it came. Ids of arrivals only rise within a session; a rollback to a savepoint undoes both.
# No nested loops either, which the planner takes for the best because the table is empty when it
# looks: with a key of its own for each message, they would be the same n times n.
JOIN = """
    CREATE FUNCTION messaging_join_lanes() RETURNS trigger LANGUAGE plpgsql
    SET enable_nestloop TO off SET jit TO off AS $$
    DECLARE
        done bigint;
    BEGIN
        IF NEW.id <= nullif(current_setting('messaging.joined', true), '')::bigint THEN
            RETURN NULL;
        END IF;
        WITH mine AS MATERIALIZED (
            DELETE FROM messaging_arrival WHERE transaction = pg_current_xact_id()
            RETURNING id, queue_id, kind, key, priority, message_id, attempt, subscription_id,
                expires_at
        ),
        wanted AS (
            SELECT queue_id, kind, key,
                least(count(*), CASE kind WHEN 0 THEN 1 ELSE 8 END)::smallint AS tokens,
                (array_agg(priority ORDER BY id))[1] AS priority, max(id) AS last
            FROM mine GROUP BY queue_id, kind, key
        ),
        lane AS (
            INSERT INTO messaging_lane AS known (queue_id, kind, key, tokens, added)
            SELECT queue_id, kind, key, tokens, tokens FROM wanted ORDER BY queue_id, kind, key
            ON CONFLICT (queue_id, kind, key) DO UPDATE SET
                added = CASE WHEN known.parked_at IS NULL THEN least(excluded.tokens,
                    CASE known.kind WHEN 0 THEN 1 ELSE 8 END - known.tokens) ELSE 0 END,
                tokens = CASE WHEN known.parked_at IS NULL THEN least(
                    known.tokens + excluded.tokens, CASE known.kind WHEN 0 THEN 1 ELSE 8 END)
                    ELSE known.tokens END
            RETURNING id, queue_id, kind, key, added
        ),
        entry AS (
            INSERT INTO messaging_laneentry (queue_id, lane_id, priority, message_id, attempt,
                subscription_id, expires_at)
            SELECT mine.queue_id, lane.id, mine.priority, mine.message_id, mine.attempt,
                mine.subscription_id, mine.expires_at
            FROM mine JOIN lane USING (queue_id, kind, key)
            ORDER BY mine.id
        ),
        token AS (
            INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt, lane_id)
            SELECT queue_id, priority, 0, 1, id
            FROM (
                SELECT queue_id, priority, id, generate_series(1, added)
                FROM lane JOIN wanted USING (queue_id, kind, key)
            ) AS token
        )
        SELECT max(wanted.last) INTO done FROM lane JOIN wanted USING (queue_id, kind, key);
        PERFORM set_config('messaging.joined', done::text, true);
        RETURN NULL;
    END $$;

    CREATE CONSTRAINT TRIGGER messaging_join_lanes AFTER INSERT ON messaging_arrival
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION messaging_join_lanes();
"""
JOIN_BACK = """
    DROP TRIGGER messaging_join_lanes ON messaging_arrival;
    DROP FUNCTION messaging_join_lanes();
"""


class Migration(migrations.Migration):
    dependencies = [("messaging", "0003_bindings")]

    operations = [migrations.RunSQL(JOIN, JOIN_BACK)]
