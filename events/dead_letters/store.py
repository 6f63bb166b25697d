"""Dead letters in SQLite: one row per event and destination, even if the delivery failed several times."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from events.cloudevent import CloudEvent
from events.sqlite_group_commit import GroupCommit, connect

_SCHEMA: Final = (
    """
CREATE TABLE entries (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  type TEXT NOT NULL,
  status TEXT NOT NULL, -- pending or replayed
  event_id TEXT NOT NULL,
  source TEXT NOT NULL,
  attributes TEXT NOT NULL, -- JSON, as it came, knativeerror* included
  data BLOB NOT NULL,
  failures INTEGER NOT NULL,
  attempts INTEGER, -- NULL if the broker did not say
  trigger TEXT,
  broker TEXT,
  first_at REAL NOT NULL, -- Unix time, as the next two
  last_at REAL NOT NULL,
  replayed_at REAL
)""",
    "CREATE INDEX entries_by_status ON entries (status, seq)",
    "CREATE INDEX entries_by_type ON entries (status, type, seq)",
)
_UPGRADES: Final = (("ALTER TABLE entries ADD COLUMN attempts INTEGER",),)
_PUT: Final = (
    "INSERT INTO entries (id, type, status, event_id, source, attributes, data, failures, trigger, broker, "
    "attempts, first_at, last_at) VALUES (?1, ?2, 'pending', ?3, ?4, ?5, ?6, 1, ?7, ?8, ?9, ?10, ?10) "
    "ON CONFLICT (id) DO UPDATE SET status = 'pending', attributes = excluded.attributes, "
    "data = excluded.data, failures = failures + 1, trigger = coalesce(excluded.trigger, trigger), "
    "broker = coalesce(excluded.broker, broker), attempts = coalesce(attempts + excluded.attempts, "
    "excluded.attempts, attempts), last_at = excluded.last_at, replayed_at = NULL"
)
_REPLAYED: Final = "UPDATE entries SET status = 'replayed', replayed_at = ? WHERE id = ? AND failures = ?"
_REMOVE: Final = "DELETE FROM entries WHERE id = ?"
_DISCARD: Final = "DELETE FROM entries WHERE status = ?1 AND (?2 IS NULL OR type = ?2)"
_FORGET: Final = "DELETE FROM entries WHERE status = 'replayed' AND replayed_at < ?"
_SELECT: Final = (
    "SELECT seq, id, status, attributes, data, failures, attempts, trigger, broker, first_at, last_at, "
    "replayed_at FROM entries "
)
_SELECT_ONE: Final = _SELECT + "WHERE id = ?"
_SELECT_PAGE: Final = _SELECT + "WHERE status = ? AND seq < ? ORDER BY seq DESC LIMIT ?"
_SELECT_PAGE_OF_TYPE: Final = _SELECT + "WHERE status = ? AND type = ? AND seq < ? ORDER BY seq DESC LIMIT ?"
STATUSES: Final = ("pending", "replayed")


class Origin(NamedTuple):
    """Origin of a dead letter: trigger and broker (namespace/name), and number of attempts. None means unknown."""

    trigger: str | None = None
    broker: str | None = None
    attempts: int | None = None


class Entry(msgspec.Struct, frozen=True):
    """One dead letter; times are Unix times.

    `failures` counts how often the broker gave up its delivery. `attempts` counts all attempts (None: unknown).
    """

    seq: int
    id: str
    status: str
    event: CloudEvent
    failures: int
    attempts: int | None
    trigger: str | None
    broker: str | None
    first_at: float
    last_at: float
    replayed_at: float | None


def entry_id(attributes: Mapping[str, str]) -> str:
    """Return the id of an entry, a hash of the event's source, its id and the destination."""
    key = "\0".join((attributes["source"], attributes["id"], attributes.get("knativeerrordest", "")))
    return f"dlq_{hashlib.sha256(key.encode()).hexdigest()[:32]}"


class Store:
    """Entries in SQLite. Create and use it on one event loop. Writes are durable on return, or raise StorageError."""

    def __init__(self, path: Path) -> None:
        self._db = connect(path, _SCHEMA, _UPGRADES)
        self._read = sqlite3.connect(path, isolation_level=None)
        self._read.execute("PRAGMA query_only=ON")
        self._commits = GroupCommit(self._db)

    async def put(self, event: CloudEvent, origin: Origin, now: float) -> str:
        """Insert a dead letter, or update the existing entry and increment its failures; return the entry's id."""
        attributes = event.attributes
        key = entry_id(attributes)
        row = (
            key,
            event.type,
            event.id,
            event.source,
            msgspec.json.encode(attributes).decode(),
            event.data,
            *origin,
            now,
        )
        await self._write(_PUT, row)
        return key

    async def replayed(self, entry: Entry, now: float) -> None:
        """Mark the entry as replayed, unless it failed again since `entry` was read."""
        await self._write(_REPLAYED, (now, entry.id, entry.failures))

    async def remove(self, key: str) -> None:
        await self._write(_REMOVE, (key,))

    async def discard(self, status: str, event_type: str | None) -> int:
        """Delete all current entries of a status and an event type (None: any type); return their number."""
        return await self._write(_DISCARD, (status, event_type))

    async def forget(self, replayed_before: float) -> None:
        """Delete entries that were replayed before this time and have not failed since."""
        await self._write(_FORGET, (replayed_before,))

    def get(self, key: str) -> Entry | None:
        row = self._read.execute(_SELECT_ONE, (key,)).fetchone()
        return _entry(row) if row else None

    def page(self, status: str, event_type: str | None, before: int, limit: int) -> list[Entry]:
        """Return up to `limit` entries with a `seq` below `before`, the newest first."""
        if event_type is None:
            rows = self._read.execute(_SELECT_PAGE, (status, before, limit))
        else:
            rows = self._read.execute(_SELECT_PAGE_OF_TYPE, (status, event_type, before, limit))
        return [_entry(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Return the number of entries by status."""
        found = dict(self._read.execute("SELECT status, count(*) FROM entries GROUP BY status").fetchall())
        return {status: found.get(status, 0) for status in STATUSES}

    def check(self) -> None:
        """Raise sqlite3.Error if the database cannot be read."""
        self._read.execute("SELECT 1 FROM entries LIMIT 1").fetchall()

    async def close(self) -> None:
        if await self._commits.close():
            self._db.close()
            self._read.close()

    async def _write(self, statement: str, row: tuple[Any, ...]) -> int:
        """Run the statement; return the number of changed rows."""
        return await self._commits.run(lambda: self._db.execute(statement, row).rowcount)


def _entry(row: tuple[Any, ...]) -> Entry:
    seq, key, status, attributes, data, *rest = row
    event = CloudEvent(msgspec.json.decode(attributes, type=dict[str, str]), data)
    return Entry(seq, key, status, event, *rest)
