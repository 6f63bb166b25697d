"""The table by which a search for several words finds the few entities that have all of them.

It has the index entries of each entity with an entry in the index `words`, as one array, which a GIN index can
intersect. A trigger writes it, so that releases that know nothing of it keep it right. The rows of entities that
existed before are written in batches, while these releases go on. A run that was interrupted may be repeated.
"""

from typing import Any

from alembic import context, op

revision = "0002"
down_revision = "0001"

_BATCH = 500

_TABLE = """
CREATE TABLE IF NOT EXISTS {schema}.searched (
    kind text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, sort text COLLATE "C" NOT NULL,
    keys text[] COLLATE "C" NOT NULL, PRIMARY KEY (kind, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS searched_keys ON {schema}.searched USING gin (keys) WITH (fastupdate = off)
"""

# A key is an index and a partition with a space between. NUL is escaped as in rows.py; "\\\\" is a backslash in JSON.
_KEYS = r"""
CREATE OR REPLACE FUNCTION {schema}.searched_keys(keys bytea, OUT sort text, OUT found text[])
LANGUAGE sql IMMUTABLE AS $$
    SELECT max(key ->> 2) FILTER (WHERE key ->> 0 = 'words'), array_agg((key ->> 0) || ' ' || (key ->> 1))
    FROM json_array_elements(replace(replace(replace(convert_from(keys, 'UTF8'),
        '\\', '\u005c'), '\u0001', '\u0001\u0002'), '\u0000', '\u0001\u0001')::json) AS key
$$
"""

_WRITE = """
CREATE OR REPLACE FUNCTION {schema}.write_searched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' AND position('["words",' IN NEW.keys) > 0 THEN
        INSERT INTO {schema}.searched
        SELECT NEW.kind, NEW.id, it.sort, it.found FROM {schema}.searched_keys(NEW.keys) AS it
        ON CONFLICT (kind, id) DO UPDATE SET sort = excluded.sort, keys = excluded.keys;
    ELSE
        DELETE FROM {schema}.searched WHERE kind = OLD.kind AND id = OLD.id;
    END IF;
    RETURN NULL;
END $$
"""

_TRIGGERS = """
DROP TRIGGER IF EXISTS searched_insert ON {schema}.entity;
CREATE TRIGGER searched_insert AFTER INSERT ON {schema}.entity FOR EACH ROW
WHEN (position('["words",' IN NEW.keys) > 0) EXECUTE FUNCTION {schema}.write_searched();
DROP TRIGGER IF EXISTS searched_update ON {schema}.entity;
CREATE TRIGGER searched_update AFTER UPDATE OF keys ON {schema}.entity FOR EACH ROW
WHEN (NEW.keys <> OLD.keys AND (position('["words",' IN OLD.keys) > 0 OR position('["words",' IN NEW.keys) > 0))
EXECUTE FUNCTION {schema}.write_searched();
DROP TRIGGER IF EXISTS searched_delete ON {schema}.entity;
CREATE TRIGGER searched_delete AFTER DELETE ON {schema}.entity FOR EACH ROW
WHEN (position('["words",' IN OLD.keys) > 0) EXECUTE FUNCTION {schema}.write_searched()
"""

# The lock keeps an entity as it was read until its row is committed, as a later change then finds that row.
_FILL = """
WITH batch AS MATERIALIZED (
    SELECT kind, id, keys FROM {schema}.entity WHERE (kind, id) > ($1, $2) ORDER BY kind, id LIMIT $3 FOR SHARE
), written AS (
    INSERT INTO {schema}.searched SELECT kind, id, it.sort, it.found
    FROM batch, {schema}.searched_keys(keys) AS it WHERE position('["words",' IN keys) > 0 ON CONFLICT DO NOTHING
) SELECT kind, id FROM batch ORDER BY kind DESC, id DESC LIMIT 1
"""


def upgrade() -> None:
    """Create the table and its triggers, fill it, and declare it complete."""
    schema = context.config.attributes["schema"]

    def run(statement: str, *values: Any) -> Any:
        return op.get_bind().exec_driver_sql(statement.replace("{schema}", schema), values)

    for statement in (*_TABLE.split(";"), _KEYS, _WRITE, *_TRIGGERS.split(";")):
        run(statement)
    with op.get_context().autocommit_block():
        last = ("", "")
        while found := run(_FILL, *last, _BATCH).first():
            last = tuple(found)
    run("UPDATE {schema}.store SET version = 2")
