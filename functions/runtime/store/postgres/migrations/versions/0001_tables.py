"""The tables of a store, and the function that commits a transaction.

Updates of entities without an expiry time are HOT updates, because no index contains a changed column and `fillfactor`
leaves room in each page. Keys are compared by bytes, as in the other stores.
"""

from alembic import context, op

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE {schema}.entity (
    kind text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, version bigint NOT NULL, mark bigint NOT NULL,
    expires bigint, keys bytea NOT NULL, data bytea NOT NULL, PRIMARY KEY (kind, id)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX entity_expiry ON {schema}.entity (expires) WHERE expires IS NOT NULL;
CREATE TABLE {schema}.entry (
    kind text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, part text COLLATE "C" NOT NULL,
    sort text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, PRIMARY KEY (kind, name, part, sort, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE TABLE {schema}.outbox (
    id text COLLATE "C" PRIMARY KEY, time bigint NOT NULL, type text NOT NULL, source text NOT NULL,
    subject text NOT NULL, data bytea NOT NULL, correlation_id text NOT NULL, traceparent text NOT NULL,
    tracestate text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 10000);
CREATE TABLE {schema}.guard (
    key text COLLATE "C" PRIMARY KEY, fingerprint text NOT NULL, answer bytea, expires bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX guard_expiry ON {schema}.guard (expires);
CREATE TABLE {schema}.store (
    id integer PRIMARY KEY CHECK (id = 1), version integer NOT NULL, serves integer NOT NULL, epoch bigint NOT NULL
);
INSERT INTO {schema}.store VALUES (1, 1, 1, 0)
"""

# Rows are locked in the order of the arrays, which are sorted by key. An entity that does not exist is locked by an
# advisory lock. Otherwise, two transactions could each create an entity that the other found absent.
_COMMIT = """
CREATE FUNCTION {schema}.commit_1(
    actions text[], kinds text[], ids text[], old_versions bigint[], old_marks bigint[], new_versions bigint[],
    new_expires bigint[], new_keys bytea[], new_data bytea[], new_mark bigint,
    removed_kinds text[], removed_names text[], removed_parts text[], removed_sorts text[], removed_ids text[],
    added_kinds text[], added_names text[], added_parts text[], added_sorts text[], added_ids text[],
    outbox_ids text[], outbox_times bigint[], outbox_types text[], outbox_sources text[], outbox_subjects text[],
    outbox_data bytea[], outbox_correlation_ids text[], outbox_traceparents text[], outbox_tracestates text[],
    record_keys text[], record_fingerprints text[], record_answers bytea[], record_expires bigint[], due bigint
) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    wrote boolean DEFAULT false;
    held boolean;
BEGIN
    FOR i IN 1 .. cardinality(ids) LOOP
        IF old_versions[i] IS NULL THEN
            PERFORM pg_advisory_xact_lock(hashtextextended(kinds[i] || ' ' || ids[i], 1));
            IF actions[i] = 'write' THEN
                INSERT INTO {schema}.entity (kind, id, version, mark, expires, keys, data) VALUES (
                    kinds[i], ids[i], new_versions[i], new_mark, new_expires[i], new_keys[i], new_data[i]
                ) ON CONFLICT DO NOTHING;
                held = FOUND;
            ELSE
                PERFORM 1 FROM {schema}.entity WHERE kind = kinds[i] AND id = ids[i];
                held = NOT FOUND;
            END IF;
        ELSIF actions[i] = 'write' THEN
            UPDATE {schema}.entity SET version = new_versions[i], mark = new_mark, expires = new_expires[i],
                keys = new_keys[i], data = new_data[i]
            WHERE kind = kinds[i] AND id = ids[i] AND version = old_versions[i] AND mark = old_marks[i];
            held = FOUND;
        ELSIF actions[i] = 'delete' THEN
            DELETE FROM {schema}.entity
            WHERE kind = kinds[i] AND id = ids[i] AND version = old_versions[i] AND mark = old_marks[i];
            held = FOUND;
        ELSE
            PERFORM 1 FROM {schema}.entity
            WHERE kind = kinds[i] AND id = ids[i] AND version = old_versions[i] AND mark = old_marks[i]
            FOR NO KEY UPDATE;
            held = FOUND;
        END IF;
        IF NOT held THEN
            IF wrote THEN
                RAISE 'another transaction was faster' USING ERRCODE = 'serialization_failure';
            END IF;
            RETURN false;
        END IF;
        wrote = wrote OR actions[i] <> 'check';
    END LOOP;
    FOR i IN 1 .. cardinality(record_keys) LOOP
        INSERT INTO {schema}.guard AS old (key, fingerprint, answer, expires) VALUES (
            record_keys[i], record_fingerprints[i], record_answers[i], record_expires[i]
        ) ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, answer = excluded.answer,
            expires = excluded.expires WHERE old.expires <= due;
        IF NOT FOUND THEN
            IF wrote THEN
                RAISE 'another transaction was faster' USING ERRCODE = 'serialization_failure';
            END IF;
            RETURN false;
        END IF;
        wrote = true;
    END LOOP;
    FOR i IN 1 .. cardinality(removed_ids) LOOP
        DELETE FROM {schema}.entry WHERE kind = removed_kinds[i] AND name = removed_names[i]
            AND part = removed_parts[i] AND sort = removed_sorts[i] AND id = removed_ids[i];
    END LOOP;
    IF cardinality(added_ids) > 0 THEN
        INSERT INTO {schema}.entry (kind, name, part, sort, id)
        SELECT * FROM unnest(added_kinds, added_names, added_parts, added_sorts, added_ids);
    END IF;
    IF cardinality(outbox_ids) > 0 THEN
        INSERT INTO {schema}.outbox (
            id, time, type, source, subject, data, correlation_id, traceparent, tracestate
        ) SELECT * FROM unnest(outbox_ids, outbox_times, outbox_types, outbox_sources, outbox_subjects, outbox_data,
            outbox_correlation_ids, outbox_traceparents, outbox_tracestates);
    END IF;
    RETURN true;
END $$
"""


def upgrade() -> None:
    """Create the tables and the function."""
    schema = context.config.attributes["schema"]
    for statement in (*_TABLES.split(";"), _COMMIT):
        op.get_bind().exec_driver_sql(statement.format(schema=schema))
