"""The broker's database: a row for each event, and one for each of its deliveries (one for each matching trigger).

Dispatchers are rows of `triggers`: `key` is the trigger's namespace/name, followed by a space and the event type if the
dispatcher delivers one type only. `deliveries.trigger` refers to them.

`deliveries.error` is NULL while the broker tries to deliver to the subscriber. After it has given up, the column
contains the failure, and the row waits for the dead-letter sink. A delivery is deleted when it has ended, and an event
with its last delivery.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from events.cloudevent import CloudEvent, header_block, header_value
from events.sqlite_group_commit import GroupCommit, connect

_SCHEMA: Final = (
    """
CREATE TABLE events (
  seq INTEGER PRIMARY KEY,
  ttl INTEGER NOT NULL,
  attributes TEXT NOT NULL, -- JSON object of strings
  data BLOB NOT NULL
)""",
    "CREATE TABLE triggers (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE)",
    """
CREATE TABLE deliveries (
  trigger INTEGER NOT NULL,
  event INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_at REAL NOT NULL DEFAULT 0, -- Unix time
  error TEXT,
  PRIMARY KEY (trigger, event)
) WITHOUT ROWID""",
    "CREATE INDEX deliveries_by_event ON deliveries (event)",
)
_INSERT_EVENT: Final = "INSERT INTO events (seq, ttl, attributes, data) VALUES (?, ?, ?, ?)"
_INSERT_DELIVERY: Final = "INSERT INTO deliveries (trigger, event) VALUES (?, ?)"
_RETRY: Final = "UPDATE deliveries SET attempts = ?, next_at = ? WHERE trigger = ? AND event = ?"
_DEAD: Final = "UPDATE deliveries SET attempts = 0, next_at = 0, error = ? WHERE trigger = ? AND event = ?"
_DONE: Final = "DELETE FROM deliveries WHERE trigger = ? AND event = ?"
_SWEEP: Final = "DELETE FROM events WHERE seq = ?1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event = ?1)"
_MOVE: Final = (
    "UPDATE OR REPLACE deliveries SET trigger = ?2 WHERE trigger = ?1 "
    "AND event IN (SELECT seq FROM events WHERE ?3 IS NULL OR json_extract(attributes, '$.type') = ?3)"
)
_SELECT_PENDING: Final = (
    "SELECT d.event, d.attempts, d.next_at, e.ttl, e.attributes, e.data FROM deliveries d "
    "JOIN events e ON e.seq = d.event "
    "WHERE d.trigger = ? AND d.event > ? AND d.error IS NULL ORDER BY d.event LIMIT ?"
)
_SELECT_DEAD: Final = (
    "SELECT event, attempts, next_at FROM deliveries WHERE trigger = ? AND error IS NOT NULL ORDER BY event"
)
_SELECT_DEAD_LETTER: Final = (
    "SELECT e.attributes, e.data, d.error FROM deliveries d JOIN events e ON e.seq = d.event "
    "WHERE d.trigger = ? AND d.event = ?"
)
_decode_attributes = msgspec.json.Decoder(dict[str, str]).decode
_encode = msgspec.json.encode


class StoredEvent:
    """A stored event; `head` is its header block (without the ttl), encoded once for all triggers."""

    __slots__ = ("attributes", "data", "head", "seq", "trace", "ttl")

    def __init__(self, seq: int, ttl: int, attributes: dict[str, str], data: bytes) -> None:
        self.seq = seq
        self.ttl = ttl
        self.attributes = attributes
        self.data = data
        self.head = header_block(attributes)
        self.trace = trace_headers(attributes.get("traceparent"), attributes.get("tracestate"))

    def cloudevent(self) -> CloudEvent:
        return CloudEvent(self.attributes, self.data)


def trace_headers(traceparent: str | None, tracestate: str | None) -> bytes:
    """Return the W3C trace headers as header lines.

    They are sent in addition to the extensions of the same names, because HTTP instrumentation reads only headers.
    """
    if not traceparent:
        return b""
    lines = f"traceparent: {header_value(traceparent)}\r\n".encode()
    return lines + b"tracestate: %b\r\n" % tracestate.encode() if tracestate and tracestate.isascii() else lines


class Failure(msgspec.Struct, frozen=True):
    """The failure for which a delivery was given up.

    `dest`, `code` and `data` are the values of knativeerrordest, knativeerrorcode and knativeerrordata. `attempts` is
    the number of delivery attempts.
    """

    dest: str
    code: int
    data: str
    attempts: int = 0


class Pending(NamedTuple):
    event: StoredEvent
    attempts: int
    next_at: float


class DeadPending(NamedTuple):
    seq: int
    attempts: int
    next_at: float


Accepted = tuple[StoredEvent, tuple[int, ...]]
"""An event and the ids of the dispatchers that deliver it."""


class Storage:
    """Reads and writes the database. Reads use a separate connection and never wait for a commit.

    In the methods, `trigger` is the id of a dispatcher and `seq` the number of an event.
    """

    def __init__(self, path: Path) -> None:
        self._db = connect(path, _SCHEMA)
        self._read = sqlite3.connect(path, isolation_level=None)
        self._read.execute("PRAGMA query_only=ON")
        self._execute = self._db.execute
        self._seq = int(self._execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
        self._commits = GroupCommit(self._db)
        self._ended: list[tuple[int, int]] = []  # ended deliveries, which the next job of `run_later` deletes

    def dispatcher_ids(self, keys: Iterable[str]) -> dict[str, int]:
        """Create missing ids for these keys; return the ids of all dispatchers by key. Call it before any write."""
        for key in keys:
            self._db.execute("INSERT INTO triggers (key) VALUES (?) ON CONFLICT DO NOTHING", (key,))
        return dict(self._db.execute("SELECT key, id FROM triggers"))

    def move(self, old: int, new: int, event_type: str | None) -> None:
        """Move pending deliveries of an event type (None: all) from the dispatcher `old` to the dispatcher `new`.

        Call it before any write.
        """
        self._db.execute(_MOVE, (old, new, event_type))

    def depths(self) -> dict[int, int]:
        """Return the number of pending deliveries by dispatcher id, including dispatchers that no longer exist."""
        return dict(self._read.execute("SELECT trigger, count(*) FROM deliveries GROUP BY trigger"))

    def stored(self, ttl: int, attributes: dict[str, str], data: bytes) -> StoredEvent:
        """Return the event with the next number; `accept` writes it."""
        self._seq += 1
        return StoredEvent(self._seq, ttl, attributes, data)

    async def accept(
        self,
        accepted: Sequence[Accepted],
        then: Callable[[], None],
        done: tuple[int, int] | None = None,
    ) -> None:
        """Store events and their deliveries durably, and end the delivery `done` (dispatcher, seq) in the same commit.

        `then` runs after the commit, in the order of the calls. Raises StorageError if nothing was written.
        """

        def write() -> None:
            for event, triggers in accepted:
                row = (event.seq, event.ttl, _encode(event.attributes).decode(), event.data)
                self._execute(_INSERT_EVENT, row)
                self._db.executemany(_INSERT_DELIVERY, [(trigger, event.seq) for trigger in triggers])
            if done is not None:
                self._end([done])

        await self._commits.run(write, lambda _: then())

    def done(self, trigger: int, seq: int) -> None:
        """Delete a delivery, and its event if this was the event's last delivery."""
        if not self._ended:
            self._commits.run_later(partial(self._end, self._ended))
        self._ended.append((trigger, seq))

    def _end(self, deliveries: list[tuple[int, int]]) -> None:
        if deliveries is self._ended:
            self._ended = []  # the job may run again after a failure, so its list stays
        self._db.executemany(_DONE, deliveries)
        self._db.executemany(_SWEEP, [(seq,) for seq in {seq for _, seq in deliveries}])

    def retry(self, trigger: int, seq: int, attempts: int, next_at: float) -> None:
        """Store the number of attempts and the time of the next attempt (Unix time)."""
        self._commits.run_later(partial(self._execute, _RETRY, (attempts, next_at, trigger, seq)))

    async def give_up(self, trigger: int, seq: int, failure: Failure) -> None:
        """Store the failure of a delivery, which then waits for the dead-letter sink. Raises StorageError."""
        row = (_encode(failure).decode(), trigger, seq)
        await self._commits.run(partial(self._execute, _DEAD, row))

    def pending(self, trigger: int, after: int, limit: int) -> list[Pending]:
        """Return up to `limit` deliveries to the subscriber after event number `after`, in order of arrival."""
        rows = self._read.execute(_SELECT_PENDING, (trigger, after, limit))
        return [
            Pending(StoredEvent(seq, ttl, _decode_attributes(attributes), data), attempts, next_at)
            for seq, attempts, next_at, ttl, attributes, data in rows
        ]

    def dead_pending(self, trigger: int) -> list[DeadPending]:
        """Return the pending deliveries to the dead-letter sink, without their events."""
        return [DeadPending(*row) for row in self._read.execute(_SELECT_DEAD, (trigger,))]

    def dead_letter(self, trigger: int, seq: int) -> tuple[CloudEvent, Failure]:
        """Return the event and the failure of a delivery to the dead-letter sink."""
        attributes, data, error = self._read.execute(_SELECT_DEAD_LETTER, (trigger, seq)).fetchone()
        return CloudEvent(_decode_attributes(attributes), data), msgspec.json.decode(error, type=Failure)

    def check(self) -> None:
        """Raise sqlite3.Error if the database cannot be read."""
        self._read.execute("SELECT 1 FROM triggers LIMIT 1").fetchall()

    async def flush(self) -> None:
        """Wait until all writes so far are durable. Raises StorageError."""
        await self._commits.run(lambda: None)

    async def close(self) -> None:
        if await self._commits.close():
            self._db.close()
            self._read.close()
