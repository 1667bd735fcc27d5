"""Compile the filters of subscriptions when they are written, for the publish statement to test."""

from django.db import migrations

# What is wrong, and where: $.customer.country[0].numeric. The same words as messaging.matching.
REFUSE = r"""
    CREATE FUNCTION messaging_refuse_filter(place text, reason text) RETURNS void
    LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'Invalid filter at %: %', place, reason USING
            ERRCODE = 'check_violation', TABLE = 'messaging_subscription',
            CONSTRAINT = 'messaging_subscription_filter';
    END $$;

    CREATE FUNCTION messaging_filter_place(place text, key text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT place || '.'
            || CASE WHEN key ~ '^[A-Za-z_$][A-Za-z0-9_-]*$' THEN key ELSE to_json(key)::text END
    $$;
"""

# Text as a regular expression; of a wildcard every '*' that has no backslash before it is any text.
REGEX = r"""
    CREATE FUNCTION messaging_filter_regex(word text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT regexp_replace(word, '[][\\.*+?(){}|^$]', '\\\&', 'g')
    $$;

    CREATE FUNCTION messaging_wildcard_regex(pattern text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT string_agg(CASE WHEN part.found[1] = '*' THEN '.*' ELSE messaging_filter_regex(
            CASE WHEN part.found[1] ~ '^\\' THEN substr(part.found[1], 2)
            ELSE part.found[1] END) END, '' ORDER BY part.number)
        FROM regexp_matches(pattern, '\\[\\*]|\*|[^\\*]+', 'g')
            WITH ORDINALITY AS part (found, number)
    $$;
"""

# One operator of a filter as a condition on '@', one value of the message. Comparing values of two
# types is neither true nor false in jsonpath, so "not" goes through exists(), which is either.
OPERATOR = r"""
    CREATE FUNCTION messaging_filter_text(value jsonb, place text) RETURNS text
    LANGUAGE plpgsql AS $$
    BEGIN
        IF jsonb_typeof(value) <> 'string' OR length(value #>> '{}') NOT BETWEEN 1 AND 1000 THEN
            PERFORM messaging_refuse_filter(place,
                left(value::text, 80) || ' is no text to compare with; use 1 to 1,000 characters.');
        END IF;
        RETURN value #>> '{}';
    END $$;

    CREATE FUNCTION messaging_filter_scalar(value jsonb, place text) RETURNS text
    LANGUAGE plpgsql AS $$
    BEGIN
        IF jsonb_typeof(value) IN ('object', 'array') THEN
            PERFORM messaging_refuse_filter(place, left(value::text, 80)
                || ' is no value; use a string, a number, true, false or null.');
        ELSIF (CASE jsonb_typeof(value) WHEN 'number' THEN abs(value::numeric) > 1e30 END) THEN
            PERFORM messaging_refuse_filter(place,
                left(value::text, 80) || ' is out of range; use numbers from -1e30 to 1e30.');
        END IF;
        RETURN '@ == ' || value::text;
    END $$;

    CREATE FUNCTION messaging_filter_operator(name text, operand jsonb, place text) RETURNS text
    LANGUAGE plpgsql AS $$
    DECLARE
        kind text := jsonb_typeof(operand);
        word text;
        ordered boolean;
        conditions text[] := '{}';
        inner_name text;
    BEGIN
        CASE name
        WHEN 'prefix' THEN
            PERFORM messaging_filter_text(operand, place);
            RETURN '@ starts with ' || operand::text;
        WHEN 'suffix' THEN
            word := messaging_filter_regex(messaging_filter_text(operand, place)) || '$';
            RETURN '@ like_regex ' || to_json(word)::text || ' flag "s"';
        WHEN 'equals-ignore-case' THEN
            word := '^' || messaging_filter_regex(messaging_filter_text(operand, place)) || '$';
            RETURN '@ like_regex ' || to_json(word)::text || ' flag "is"';
        WHEN 'wildcard' THEN
            word := messaging_filter_text(operand, place);
            IF word !~ '^([^\\]|\\[\\*])*$' THEN
                PERFORM messaging_refuse_filter(place, left(operand::text, 80)
                    || ' has a lone backslash; write \* for an asterisk, \\ for a backslash.');
            ELSIF regexp_replace(word, '\\[\\*]', '.', 'g') LIKE '%**%' THEN
                PERFORM messaging_refuse_filter(place,
                    left(operand::text, 80) || ' has two asterisks in a row; use one.');
            END IF;
            word := '^' || messaging_wildcard_regex(word) || '$';
            RETURN '@ like_regex ' || to_json(word)::text || ' flag "s"';
        WHEN 'numeric' THEN
            IF kind = 'array' THEN
                ordered := jsonb_array_length(operand) = 2
                    AND operand ->> 0 IN ('=', '<', '<=', '>', '>=')
                    OR jsonb_array_length(operand) = 4
                    AND operand ->> 0 IN ('>', '>=') AND operand ->> 2 IN ('<', '<=');
            END IF;
            IF ordered IS NOT TRUE OR jsonb_typeof(operand -> 1) <> 'number'
                OR jsonb_typeof(operand -> 3) <> 'number' THEN
                PERFORM messaging_refuse_filter(place, left(operand::text, 80)
                    || ' is no comparison; use [">=", 100], or [">", 0, "<=", 150] for a range.');
            END IF;
            PERFORM messaging_filter_scalar(operand -> 1, place || '[1]');
            word := replace(operand ->> 0, '=', CASE operand ->> 0 WHEN '=' THEN '==' ELSE '=' END);
            word := '@ ' || word || ' ' || (operand ->> 1);
            IF jsonb_array_length(operand) = 4 THEN
                PERFORM messaging_filter_scalar(operand -> 3, place || '[3]');
                IF (operand -> 1)::numeric >= (operand -> 3)::numeric THEN
                    PERFORM messaging_refuse_filter(place, left(operand::text, 80)
                        || ' is an empty range; put the smaller number first.');
                END IF;
                word := word || ' && @ ' || (operand ->> 2) || ' ' || (operand ->> 3);
            END IF;
            RETURN word;
        WHEN 'cidr' THEN
            RETURN '@ == $' || to_json(messaging_filter_network(operand, place))::text || '[*]';
        WHEN 'anything-but' THEN
            IF kind = 'object' THEN
                SELECT string_agg(key, ', ') INTO inner_name FROM jsonb_object_keys(operand) AS key;
                IF inner_name IS NULL OR inner_name NOT IN
                    ('prefix', 'suffix', 'wildcard', 'equals-ignore-case') THEN
                    PERFORM messaging_refuse_filter(place, left(operand::text, 80) || ' is unknown;'
                        || ' use one of prefix, suffix, wildcard, equals-ignore-case.');
                END IF;
                place := messaging_filter_place(place, inner_name);
                operand := operand -> inner_name;
                kind := jsonb_typeof(operand);
            END IF;
            IF kind = 'array' AND jsonb_array_length(operand) = 0 THEN
                PERFORM messaging_refuse_filter(place, '[] is empty; name one value at least.');
            END IF;
            FOR number IN 0 .. CASE kind WHEN 'array' THEN jsonb_array_length(operand) ELSE 1 END
                - 1 LOOP
                DECLARE
                    each jsonb := CASE kind WHEN 'array' THEN operand -> number ELSE operand END;
                    there text := place || CASE kind WHEN 'array' THEN '[' || number || ']' ELSE ''
                        END;
                BEGIN
                    conditions := conditions || CASE WHEN inner_name IS NULL
                        THEN messaging_filter_scalar(each, there)
                        ELSE messaging_filter_operator(inner_name, each, there) END;
                END;
            END LOOP;
            RETURN '@.type() != "object" && !exists(@ ? ('
                || array_to_string(conditions, ' || ') || '))';
        WHEN 'exists' THEN
            IF kind <> 'boolean' THEN
                PERFORM messaging_refuse_filter(place,
                    left(operand::text, 80) || ' is neither true nor false.');
            END IF;
            -- SNS: a key exists when it has a value that is neither null nor empty.
            RETURN '@.type() != "object" && !exists(@ ? (@ == null || @ == ""))';
        ELSE
            PERFORM messaging_refuse_filter(place, to_json(left(name, 80))::text || ' is unknown;'
                || ' use one of anything-but, cidr, equals-ignore-case, exists, numeric, prefix,'
                || ' suffix, wildcard.');
        END CASE;
    END $$;
"""

NETWORK = r"""
    CREATE FUNCTION messaging_is_network(word text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    BEGIN
        IF word ~ '^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(?!/)|(?=/))){4}/(3[0-2]|[12]?\d)$'
            OR word ~ '^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*/(12[0-8]|1[01]\d|[1-9]?\d)$' THEN
            RETURN word::inet IS NOT NULL;
        END IF;
        RETURN false;
    EXCEPTION WHEN invalid_text_representation THEN
        RETURN false;
    END $$;

    CREATE FUNCTION messaging_filter_network(operand jsonb, place text) RETURNS text
    LANGUAGE plpgsql AS $$
    DECLARE
        word text := messaging_filter_text(operand, place);
    BEGIN
        IF NOT messaging_is_network(word) THEN
            PERFORM messaging_refuse_filter(place, left(operand::text, 80)
                || ' is no network; use one such as 10.0.0.0/24 or 2001:db8::/32.');
        END IF;
        RETURN word;
    END $$;

    -- For each network the texts of the document that are addresses in it.
    CREATE FUNCTION messaging_addresses(document jsonb, networks text[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
    DECLARE
        word text;
        words text[] := '{}';
        addresses inet[] := '{}';
    BEGIN
        FOR word IN
            SELECT DISTINCT each #>> '{}' FROM jsonb_path_query(document,
                '$.** ? (@.type() == "string" && @ like_regex "^[0-9A-Fa-f:.]{2,45}$")') AS each
        LOOP
            IF word ~ '^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.|$)){4}$' AND word !~ '\.$'
                OR word ~ ':.*:' THEN
                BEGIN
                    addresses := addresses || word::inet;
                    words := words || word;
                EXCEPTION WHEN invalid_text_representation THEN
                    NULL;
                END;
            END IF;
        END LOOP;
        RETURN (
            SELECT jsonb_object_agg(network, (
                SELECT coalesce(jsonb_agg(each.word), '[]')
                FROM unnest(words, addresses) AS each (word, address)
                WHERE each.address <<= network::inet))
            FROM unnest(networks) AS network
        );
    END $$;
"""

# All keys of an object have to match, of a key's list any one does. The values of an array are
# looked at one by one; a nested filter has to match one object of an array by itself.
OBJECT = r"""
    CREATE TYPE messaging_filter_condition AS (condition text, matches_nothing boolean);

    CREATE FUNCTION messaging_filter_list(
        list jsonb, context text, key text, place text, OUT result messaging_filter_condition
    ) LANGUAGE plpgsql AS $$
    DECLARE
        path text := context || '.' || to_json(key)::text;
        something text := '@.type() != "array" && ';
        name text;
        item jsonb;
        there text;
        conditions text[] := '{}';
    BEGIN
        IF jsonb_array_length(list) = 0 THEN
            PERFORM messaging_refuse_filter(place, '[] is empty; name one value at least.');
        END IF;
        result.matches_nothing := false;
        FOR number IN 0 .. jsonb_array_length(list) - 1 LOOP
            item := list -> number;
            there := place || '[' || number || ']';
            IF jsonb_typeof(item) <> 'object' THEN
                conditions := conditions || messaging_filter_scalar(item, there);
                CONTINUE;
            END IF;
            SELECT string_agg(each, ', ') INTO name FROM jsonb_object_keys(item) AS each;
            IF (SELECT count(*) FROM jsonb_object_keys(item)) <> 1 THEN
                PERFORM messaging_refuse_filter(there, left(item::text, 80)
                    || ' is not one operator; use one such as {"prefix": "eu-"}.');
            END IF;
            there := messaging_filter_place(there, name);
            conditions := conditions || ('(' ||
                messaging_filter_operator(name, item -> name, there) || ')');
            IF item = '{"exists": false}' THEN
                result.matches_nothing := true;
                conditions := trim_array(conditions, 1);
                result.condition := '!exists(' || path || ' ? (' || something
                    || '@.type() != "object" && !exists(@ ? (@ == null || @ == ""))))';
            END IF;
        END LOOP;
        IF cardinality(conditions) > 0 THEN
            result.condition := concat_ws(' || ', result.condition, 'exists(' || path || ' ? ('
                || something || '(' || array_to_string(conditions, ' || ') || ')))');
        END IF;
        result.condition := '(' || result.condition || ')';
    END $$;

    CREATE FUNCTION messaging_filter_object(
        filter jsonb, context text, place text, scope text, depth integer,
        OUT result messaging_filter_condition
    ) LANGUAGE plpgsql AS $$
    DECLARE
        key text;
        value jsonb;
        there text;
        part messaging_filter_condition;
        path text;
        number integer;
        choices text[];
        conditions text[] := '{}';
        any_matches_nothing boolean;
    BEGIN
        IF jsonb_typeof(filter) IS DISTINCT FROM 'object' THEN
            PERFORM messaging_refuse_filter(place, left(filter::text, 80)
                || ' is no filter; use an object such as {"country": ["GB", "IE"]}.');
        ELSIF filter = '{}' THEN
            PERFORM messaging_refuse_filter(place,
                '{} is empty; name a key, or leave the filter out.');
        ELSIF depth > 5 THEN
            PERFORM messaging_refuse_filter(place,
                'it is nested too deeply; use 5 levels of objects at most.');
        END IF;
        result.matches_nothing := true;
        FOR key, value IN SELECT * FROM jsonb_each(filter) LOOP
            there := messaging_filter_place(place, key);
            IF key = '$or' THEN
                IF jsonb_typeof(value) <> 'array' OR jsonb_array_length(value) < 2 THEN
                    PERFORM messaging_refuse_filter(there,
                        left(value::text, 80) || ' is no choice; use a list of 2 filters or more.');
                END IF;
                choices := '{}';
                any_matches_nothing := false;
                FOR number IN 0 .. jsonb_array_length(value) - 1 LOOP
                    part := messaging_filter_object(value -> number, context,
                        there || '[' || number || ']', scope, depth + 1);
                    choices := choices || part.condition;
                    any_matches_nothing := any_matches_nothing OR part.matches_nothing;
                END LOOP;
                conditions := conditions || ('(' || array_to_string(choices, ' || ') || ')');
                result.matches_nothing := result.matches_nothing AND any_matches_nothing;
                CONTINUE;
            END IF;
            CASE jsonb_typeof(value)
            WHEN 'array' THEN
                part := messaging_filter_list(value, context, key, there);
            WHEN 'object' THEN
                IF scope = 'headers' THEN
                    PERFORM messaging_refuse_filter(there, left(value::text, 80)
                        || ' is an object, and headers hold none; use a list of values, or filter'
                        || ' on the body.');
                END IF;
                part := messaging_filter_object(value, '@', there, scope, depth + 1);
                path := context || '.' || to_json(key)::text;
                part.condition := 'exists(' || path || ' ? (@.type() == "object" && '
                    || part.condition || '))';
                -- A key that is missing, or no object, has no keys of its own either.
                IF part.matches_nothing THEN
                    part.condition := '(' || part.condition || ' || !exists(' || path
                        || ' ? (@.type() == "object")))';
                END IF;
            ELSE
                PERFORM messaging_refuse_filter(there,
                    left(value::text, 80) || ' is no list; put the values into a list.');
            END CASE;
            conditions := conditions || part.condition;
            result.matches_nothing := result.matches_nothing AND part.matches_nothing;
        END LOOP;
        result.condition := '(' || array_to_string(conditions, ' && ') || ')';
    END $$;
"""

COMPILE = r"""
    -- What a filter looks like to the publish statement; a body that is no object matches none.
    CREATE FUNCTION messaging_compile_filter(filter jsonb, scope text) RETURNS jsonpath
    LANGUAGE plpgsql AS $$
    DECLARE
        size integer := octet_length(filter::text);
        conditions bigint;
    BEGIN
        IF filter IS NULL THEN
            RETURN NULL;
        ELSIF scope NOT IN ('headers', 'body') THEN
            PERFORM messaging_refuse_filter('$', to_json(scope)::text
                || ' is no part of a message; filter on headers or body.');
        ELSIF size > 65536 THEN
            PERFORM messaging_refuse_filter('$',
                'it takes ' || size || ' bytes of JSON; use 65,536 at most.');
        END IF;
        SELECT count(*) INTO conditions
        FROM jsonb_path_query(filter, 'strict $.** ? (@.type() != "object" && @.type() != "array")');
        IF conditions > 256 THEN
            PERFORM messaging_refuse_filter('$',
                'it has ' || conditions || ' values; use 256 at most.');
        END IF;
        RETURN '$.type() == "object" && '
            || (messaging_filter_object(filter, '$', '$', scope, 1)).condition;
    END $$;

    -- Addresses are no values that jsonpath compares: these are found first, where a filter has any.
    CREATE FUNCTION messaging_filter_networks(filter jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT array_agg(DISTINCT found #>> '{}')
        FROM jsonb_path_query(filter, '$.**.cidr ? (@.type() == "string")') AS found
        WHERE messaging_is_network(found #>> '{}')
    $$;

    CREATE FUNCTION messaging_matches(document jsonb, condition jsonpath, networks text[])
    RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT coalesce(CASE WHEN networks IS NULL THEN document @@ condition
            ELSE jsonb_path_match(
                document, condition, messaging_addresses(document, networks), true) END, false)
    $$;
"""

# As before, with what the filter compiles to beside each binding, where the publish statement has
# it at hand. The filter of a subscription that is not active has to be right, too.
BIND = """
    ALTER TABLE messaging_binding
        ADD COLUMN condition jsonpath,
        ADD COLUMN networks text[],
        ADD COLUMN on_body boolean NOT NULL DEFAULT false;

    CREATE OR REPLACE FUNCTION messaging_bind_subscription() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        compiled jsonpath;
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtext('messaging_binding'), 0);
        IF TG_OP <> 'INSERT' THEN
            DELETE FROM messaging_binding WHERE subscription_id = OLD.id;
        END IF;
        IF TG_OP = 'DELETE' THEN
            RETURN NULL;
        END IF;
        compiled := messaging_compile_filter(NEW.filter, NEW.filter_scope);
        IF NEW.is_active THEN
            INSERT INTO messaging_binding
                (topic_id, subscription_id, queue_id, condition, networks, on_body)
            SELECT topic.id, NEW.id, NEW.queue_id, compiled,
                messaging_filter_networks(NEW.filter), NEW.filter_scope = 'body'
            FROM messaging_topic AS topic
            WHERE '.' || topic.name ~ messaging_pattern_regex(NEW.pattern)
            ON CONFLICT DO NOTHING;
        END IF;
        RETURN NULL;
    END $$;

    DROP TRIGGER messaging_bind_subscription ON messaging_subscription;
    CREATE TRIGGER messaging_bind_subscription
    AFTER INSERT OR DELETE OR UPDATE OF pattern, queue_id, is_active, filter, filter_scope
    ON messaging_subscription
    FOR EACH ROW EXECUTE FUNCTION messaging_bind_subscription();

    CREATE OR REPLACE FUNCTION messaging_bind_topic() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtext('messaging_binding'), 0);
        IF TG_OP <> 'INSERT' THEN
            DELETE FROM messaging_binding WHERE topic_id = OLD.id;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO messaging_binding
                (topic_id, subscription_id, queue_id, condition, networks, on_body)
            SELECT NEW.id, subscription.id, subscription.queue_id,
                messaging_compile_filter(subscription.filter, subscription.filter_scope),
                messaging_filter_networks(subscription.filter), subscription.filter_scope = 'body'
            FROM messaging_subscription AS subscription
            WHERE subscription.is_active
              AND '.' || NEW.name ~ messaging_pattern_regex(subscription.pattern)
            ON CONFLICT DO NOTHING;
        END IF;
        RETURN NULL;
    END $$;
"""
# What reads the columns goes first.
BIND_BACK = """
    CREATE OR REPLACE FUNCTION messaging_bind_subscription() RETURNS trigger LANGUAGE plpgsql AS $$
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

    DROP TRIGGER messaging_bind_subscription ON messaging_subscription;
    CREATE TRIGGER messaging_bind_subscription
    AFTER INSERT OR DELETE OR UPDATE OF pattern, queue_id, is_active ON messaging_subscription
    FOR EACH ROW EXECUTE FUNCTION messaging_bind_subscription();

    CREATE OR REPLACE FUNCTION messaging_bind_topic() RETURNS trigger LANGUAGE plpgsql AS $$
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

    ALTER TABLE messaging_binding
        DROP COLUMN condition, DROP COLUMN networks, DROP COLUMN on_body;
"""


class Migration(migrations.Migration):
    dependencies = [("messaging", "0005_publish_and_operate")]

    operations = [
        migrations.RunSQL(
            REFUSE,
            """
            DROP FUNCTION messaging_filter_place(text, text);
            DROP FUNCTION messaging_refuse_filter(text, text);
            """,
        ),
        migrations.RunSQL(
            REGEX,
            """
            DROP FUNCTION messaging_wildcard_regex(text);
            DROP FUNCTION messaging_filter_regex(text);
            """,
        ),
        migrations.RunSQL(
            OPERATOR,
            """
            DROP FUNCTION messaging_filter_operator(text, jsonb, text);
            DROP FUNCTION messaging_filter_scalar(jsonb, text);
            DROP FUNCTION messaging_filter_text(jsonb, text);
            """,
        ),
        migrations.RunSQL(
            NETWORK,
            """
            DROP FUNCTION messaging_addresses(jsonb, text[]);
            DROP FUNCTION messaging_filter_network(jsonb, text);
            DROP FUNCTION messaging_is_network(text);
            """,
        ),
        migrations.RunSQL(
            OBJECT,
            """
            DROP FUNCTION messaging_filter_object(jsonb, text, text, text, integer);
            DROP FUNCTION messaging_filter_list(jsonb, text, text, text);
            DROP TYPE messaging_filter_condition;
            """,
        ),
        migrations.RunSQL(
            COMPILE,
            """
            DROP FUNCTION messaging_matches(jsonb, jsonpath, text[]);
            DROP FUNCTION messaging_filter_networks(jsonb);
            DROP FUNCTION messaging_compile_filter(jsonb, text);
            """,
        ),
        migrations.RunSQL(BIND, BIND_BACK),
    ]
