"""The schema of a store's SQLite file, and its upgrades; `events.sqlite.migrate` applies them."""

from __future__ import annotations

# Entities are stored by row number, because a B-tree by key would hold whole rows in its inner pages and become deep.
# Index entries contain the row number, which saves one look-up for each entity of a page.
_ENTITY = """
CREATE TABLE entity (
    row INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, data BLOB NOT NULL,
    keys BLOB NOT NULL, expires INTEGER, UNIQUE (kind, id)
)"""
_ENTITY_EXPIRY = "CREATE INDEX entity_expiry ON entity (expires) WHERE expires IS NOT NULL"
_ENTRY = """
CREATE TABLE entry (
    kind TEXT NOT NULL, name TEXT NOT NULL, part TEXT NOT NULL, sort TEXT NOT NULL, id TEXT NOT NULL,
    row INTEGER NOT NULL, PRIMARY KEY (kind, name, part, sort, id)
) WITHOUT ROWID"""

_EPOCH = (
    "CREATE TABLE epoch (id INTEGER PRIMARY KEY CHECK (id = 1), began INTEGER NOT NULL)",
    "INSERT INTO epoch VALUES (1, 0)",
)

SCHEMA = (
    _ENTITY,
    _ENTITY_EXPIRY,
    _ENTRY,
    """
CREATE TABLE outbox (
    id TEXT PRIMARY KEY, type TEXT NOT NULL, source TEXT NOT NULL, subject TEXT NOT NULL, time INTEGER NOT
    NULL, data BLOB NOT NULL, correlation_id TEXT NOT NULL, traceparent TEXT NOT NULL, tracestate TEXT NOT
    NULL
) WITHOUT ROWID""",
    """
CREATE TABLE guard (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, answer BLOB, expires INTEGER NOT NULL
) WITHOUT ROWID""",
    "CREATE INDEX guard_expiry ON guard (expires)",
    "CREATE TABLE heartbeat (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL)",
    "INSERT INTO heartbeat VALUES (1, 0)",
    *_EPOCH,
)

UPGRADES = (
    (
        "DROP INDEX entity_expiry",
        "ALTER TABLE entity RENAME TO entity_1",
        "ALTER TABLE entry RENAME TO entry_1",
        _ENTITY,
        "INSERT INTO entity SELECT NULL, kind, id, version, data, keys, expires FROM entity_1 ORDER BY kind, id",
        _ENTITY_EXPIRY,
        _ENTRY,
        "INSERT INTO entry SELECT kind, name, part, sort, id, entity.row FROM entry_1 JOIN entity USING (kind, id)"
        " ORDER BY kind, name, part, sort, id",
        "DROP TABLE entity_1",
        "DROP TABLE entry_1",
    ),
    _EPOCH,
)
"""The statements that migrate version 1 to 2, and so on."""
