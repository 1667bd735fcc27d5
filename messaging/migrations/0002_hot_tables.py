"""Give the hot tables what the ORM has no words for."""

from django.db import migrations

# The transaction that published a message: the live feed and replay order by it. Only topics are
# read in this way, so messages sent to a queue pay for no entry. What a message has caused is found
# by its id.
LOG = """
    ALTER TABLE messaging_message
        ADD COLUMN transaction xid8 NOT NULL DEFAULT pg_current_xact_id();
    CREATE INDEX messaging_message_topic ON messaging_message (topic_id, transaction, id)
        WHERE topic_id IS NOT NULL;
    CREATE INDEX messaging_message_cause ON messaging_message (causation_id)
        WHERE causation_id IS NOT NULL;
"""
LOG_BACK = """
    DROP INDEX messaging_message_cause;
    DROP INDEX messaging_message_topic;
    ALTER TABLE messaging_message DROP COLUMN transaction;
"""

# One index only. The unique (queue, priority, id) serves every claim and identifies a row for
# logical replication; a primary key would be a second entry for each message and no use.
DELIVERY = """
    ALTER TABLE messaging_delivery DROP CONSTRAINT messaging_delivery_pkey;
    ALTER TABLE messaging_delivery REPLICA IDENTITY USING INDEX messaging_delivery_next;
"""
DELIVERY_BACK = """
    ALTER TABLE messaging_delivery REPLICA IDENTITY DEFAULT;
    ALTER TABLE messaging_delivery ADD CONSTRAINT messaging_delivery_pkey PRIMARY KEY (id);
"""

# Lane entries are read by lane only; the token of a lease rises with each that is given.
LANES = """
    ALTER TABLE messaging_laneentry DROP CONSTRAINT messaging_laneentry_pkey;
    ALTER TABLE messaging_laneentry REPLICA IDENTITY USING INDEX messaging_lane_entry_next;
    CREATE SEQUENCE messaging_lease_token_seq AS bigint;
    ALTER TABLE messaging_arrival
        ADD COLUMN transaction xid8 NOT NULL DEFAULT pg_current_xact_id();
    ALTER TABLE messaging_arrival DROP CONSTRAINT messaging_arrival_pkey;
    CREATE INDEX messaging_arrival_transaction ON messaging_arrival (transaction);
    ALTER TABLE messaging_arrival REPLICA IDENTITY FULL;
"""
LANES_BACK = """
    ALTER TABLE messaging_arrival REPLICA IDENTITY DEFAULT;
    DROP INDEX messaging_arrival_transaction;
    ALTER TABLE messaging_arrival DROP COLUMN transaction;
    ALTER TABLE messaging_arrival ADD CONSTRAINT messaging_arrival_pkey PRIMARY KEY (id);
    DROP SEQUENCE messaging_lease_token_seq;
    ALTER TABLE messaging_laneentry REPLICA IDENTITY DEFAULT;
    ALTER TABLE messaging_laneentry ADD CONSTRAINT messaging_laneentry_pkey PRIMARY KEY (id);
"""

# Vacuum after a number of dead rows, not after a share of a table whose size means nothing.
VACUUM = """
    ALTER TABLE messaging_delivery SET (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_threshold = -1,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 200000,
        autovacuum_vacuum_cost_delay = 0);
    ALTER TABLE messaging_scheduled SET (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_threshold = -1,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 200000);
    ALTER TABLE messaging_lane SET (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_threshold = -1,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 200000);
    ALTER TABLE messaging_laneentry SET (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_threshold = -1,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 200000);
    ALTER TABLE messaging_lease SET (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_threshold = -1,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 200000);
"""
VACUUM_BACK = """
    ALTER TABLE messaging_delivery RESET (
        autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
        autovacuum_vacuum_insert_threshold, autovacuum_analyze_scale_factor,
        autovacuum_analyze_threshold, autovacuum_vacuum_cost_delay);
    ALTER TABLE messaging_scheduled RESET (
        autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
        autovacuum_vacuum_insert_threshold, autovacuum_analyze_scale_factor,
        autovacuum_analyze_threshold);
    ALTER TABLE messaging_lane RESET (
        autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
        autovacuum_vacuum_insert_threshold, autovacuum_analyze_scale_factor,
        autovacuum_analyze_threshold);
    ALTER TABLE messaging_laneentry RESET (
        autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
        autovacuum_vacuum_insert_threshold, autovacuum_analyze_scale_factor,
        autovacuum_analyze_threshold);
    ALTER TABLE messaging_lease RESET (
        autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
        autovacuum_vacuum_insert_threshold, autovacuum_analyze_scale_factor,
        autovacuum_analyze_threshold);
"""

# Heartbeats are worth nothing after a crash of the server.
UNLOGGED = "ALTER TABLE messaging_worker SET UNLOGGED"
UNLOGGED_BACK = "ALTER TABLE messaging_worker SET LOGGED"


class Migration(migrations.Migration):
    dependencies = [("messaging", "0001_initial")]

    operations = [
        migrations.RunSQL(LOG, LOG_BACK),
        migrations.RunSQL(DELIVERY, DELIVERY_BACK),
        migrations.RunSQL(LANES, LANES_BACK),
        migrations.RunSQL(VACUUM, VACUUM_BACK),
        migrations.RunSQL(UNLOGGED, UNLOGGED_BACK),
    ]
