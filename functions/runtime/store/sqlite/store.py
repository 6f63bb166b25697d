"""The store on SQLite, with one file for each domain. A write is durable when it returns (WAL, FULL, group commit)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from events.outbox import OutboxRow
from events.sqlite_group_commit import GroupCommit, StorageError
from functions.runtime.clock import Clock
from functions.runtime.store.base import Found, Range, StoreBase, log
from functions.runtime.store.codec import decode_keys, from_micros, micros
from functions.runtime.store.planning import IdempotencyRow, Plan, Request, Stored, Write, plan_or_replay
from functions.runtime.store.port import Entity, EntityMapping, Ref, store_unavailable
from functions.runtime.store.search import COUNTED, Query, plan_search
from functions.runtime.store.sqlite import bitmaps, search
from functions.runtime.store.sqlite.file import SQLiteFile

GET = "SELECT version, data, keys, expires FROM entity WHERE kind = ? AND id = ?"
GET_DATA = "SELECT data FROM entity WHERE kind = ? AND id = ? AND (expires IS NULL OR expires > ?)"
_ROW = "SELECT row FROM entity WHERE kind = ? AND id = ?"
_INSERT = "INSERT INTO entity VALUES (NULL, ?, ?, ?, ?, ?, ?)"
_UPDATE_DATA = "UPDATE entity SET version = ?, data = ? WHERE kind = ? AND id = ?"
_UPDATE = "UPDATE entity SET version = ?, data = ?, keys = ?, expires = ? WHERE kind = ? AND id = ?"
_DELETE = "DELETE FROM entity WHERE kind = ? AND id = ?"
_ADD_ENTRY = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)"
_REMOVE_ENTRY = "DELETE FROM entry WHERE kind = ? AND name = ? AND part = ? AND sort = ? AND id = ?"
_PAGE = """
SELECT entry.sort, entry.id, entity.data FROM entry
CROSS JOIN entity ON entity.row = entry.row
WHERE entry.kind = ? AND entry.name = ? AND entry.part = ?{after}{until}
AND (entity.expires IS NULL OR entity.expires > ?)
ORDER BY entry.sort {way}, entry.id {way} LIMIT ?
"""


def page_statement(*, after: bool, until: bool, descending: bool) -> str:
    """Return the statement that selects sort key, id and data of a partition's entities.

    Its parameters are kind, index, partition, the sort key and id of `after`, `until`, the current time, and the limit.
    """
    return _PAGE.format(
        after=f" AND (entry.sort, entry.id) {'<' if descending else '>'} (?, ?)" if after else "",
        until=" AND entry.sort <= ?" if until else "",
        way="DESC" if descending else "ASC",
    )


def apply(execute: Callable[[str, tuple[Any, ...]], Any], write: Write) -> None:
    """Write or remove one entity and its index entries."""
    kind, key, old, new = write.kind, write.id, write.old, write.new
    row = None
    before, after = ((), ()) if old and new and old.keys == new.keys else map(bitmaps.searched_keys, (old, new))
    if before:
        (row,) = execute(_ROW, (kind, key)).fetchone()
    if new is None:
        execute(_DELETE, (kind, key))
    elif old is None:
        row = execute(_INSERT, (kind, key, *new)).lastrowid
    elif old[2:] == new[2:]:
        execute(_UPDATE_DATA, (new.version, new.data, kind, key))
    else:
        execute(_UPDATE, (*new, kind, key))
    for name, part, sort in write.removed:
        execute(_REMOVE_ENTRY, (kind, name, part, sort, key))
    if write.added and row is None:
        (row,) = execute(_ROW, (kind, key)).fetchone()
    if row is not None and (before or after):
        bitmaps.update(execute, kind, row, before, after)
    for name, part, sort in write.added:
        execute(_ADD_ENTRY, (kind, name, part, sort, key, row))


E = TypeVar("E", bound=Entity)
T = TypeVar("T")

_TIMEOUT = 5.0  # seconds
_CHUNK = 100  # maximum number of rows that one job removes, because the removal blocks the event loop

_RECORD = "SELECT key, fingerprint, answer, expires FROM guard WHERE key = ?"
_ADD_RECORD = "INSERT OR REPLACE INTO guard VALUES (?, ?, ?, ?)"
_ADD_OUTBOX = "INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OUTBOX = "SELECT * FROM outbox WHERE time < ? ORDER BY id LIMIT ?"
_DUE = "SELECT kind, id, version, data, keys, expires FROM entity WHERE expires <= ? LIMIT ?"
_EXPIRE_RECORDS = "DELETE FROM guard WHERE key IN (SELECT key FROM guard WHERE expires <= ? LIMIT ?)"


class SQLiteStore(StoreBase):
    """An implementation of the port with one file, which no other process writes.

    Every statement runs on the event loop's thread, where it takes microseconds. Only COMMIT, which waits for the disk,
    runs in another thread. Reads see the committed data and never wait. Writes use one connection one after the other,
    so no race is ever lost and versions need no check. A job that has not been committed after `timeout` seconds fails
    with UNAVAILABLE. Tests pass a `connection` class that simulates disk failures.
    """

    def __init__(
        self,
        path: Path,
        mappings: Sequence[EntityMapping[Any]],
        clock: Clock,
        *,
        timeout: float = _TIMEOUT,
        connection: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        super().__init__(mappings, clock)
        self._file = SQLiteFile(path, connection)
        self._execute = self._file.writer.execute
        self._commits = GroupCommit(self._file.writer, timeout)
        self._purge_due = True  # a process that was killed may have left traces of removed data
        self._epoch: int = self._file.reader.execute("SELECT began FROM epoch").fetchone()[0]
        self._depth: int = self._file.reader.execute("SELECT COUNT(*) FROM outbox").fetchone()[0]

    async def get(self, cls: type[E], entity_id: str) -> E | None:
        codec = self._codecs.of(cls)
        for (data,) in self._read(GET_DATA, (codec.name, entity_id, self._due())):
            return codec.decode(data)
        return None

    async def _read_many(self, kind: str, ids: Sequence[str]) -> Mapping[str, bytes]:
        due = self._due()
        return {entity_id: data for entity_id in ids for (data,) in self._read(GET_DATA, (kind, entity_id, due))}

    async def _read_range(self, wanted: Range, limit: int) -> Sequence[Found]:
        after, until = wanted.after, wanted.until
        sql = page_statement(after=after is not None, until=until is not None, descending=wanted.descending)
        bounds = (*(after or ()), *(() if until is None else (until,)))
        return self._read(sql, (*wanted[:3], *bounds, self._due(), limit))

    async def _read_matching(self, query: Query, limit: int) -> tuple[Sequence[Found], str | None]:
        kind, below, listings = query.kind, () if query.below is None else (query.below,), query.listings()
        if query.is_indexed():
            sql = bitmaps.read_statement([len(term.partitions) for term in query.terms])
            rows = self._read(sql, tuple(chain(*((kind, *listing) for listing in listings))))
            numbers = bitmaps.few_numbers(query, rows)
            if numbers is not None:
                sql = bitmaps.find_statement(below=bool(below), containing=len(query.containing))
                found = self._read(sql, (json.dumps(numbers), self._due(), *below, *query.containing, limit))
                return found, found[-1][0] if len(found) == limit else None
        sql = search.count_statement(len(listings), below=bool(below))
        counts = self._read(sql, tuple(chain(*((kind, *listing, *below, COUNTED) for listing in listings))))
        plan = plan_search(query, counts)
        if plan is None:
            return (), None
        floor = () if plan.floor is None else (plan.floor,)
        sql = search.search_statement(
            len(plan.driver),
            [len(term) for term in plan.others],
            below=bool(below),
            floor=bool(floor),
            containing=len(query.containing),
        )
        rest = (*chain(*((kind, *listing) for term in plan.others for listing in term)), *query.containing)
        arms = chain(*((kind, *listing, *below, *floor, *rest) for listing in plan.driver))
        return plan.result(self._read(sql, (self._due(), *arms, limit)), limit)

    async def _commit(self, request: Request) -> Any:
        planned = await self._run(partial(self._transact, request), self._committed)
        return planned.result

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]:
        rows = self._read(_OUTBOX, (micros(before), limit))
        return [OutboxRow._make((*row[:4], from_micros(row[4]), *row[5:])) for row in rows]

    async def outbox_published(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _CHUNK):
            chunk = [(row_id,) for row_id in ids[start : start + _CHUNK]]
            await self._run(partial(self._remove_outbox, chunk), self._outbox_removed)

    async def outbox_state(self) -> tuple[int, datetime | None]:
        rows = self._read("SELECT time FROM outbox ORDER BY id LIMIT 1", ())
        return self._depth, from_micros(rows[0][0]) if rows else None

    async def expire(self, now: datetime, limit: int = 1000) -> int:
        removed = 0
        for remove in (self._expire_entities, self._expire_records):
            chunk = count = min(_CHUNK, limit - removed)
            while chunk and count == chunk:
                count = await self._run(partial(remove, micros(now), chunk))
                removed += count
                chunk = min(_CHUNK, limit - removed)
        if self._purge_due:
            self._purge_due = False
            if not await self._commits.run_exclusive(self._file.purge):
                self._purge_due = True
        return removed

    def request_purge(self) -> None:
        self._purge_due = True

    async def epoch(self) -> int:
        return self._epoch

    async def ping(self) -> None:
        """Write, sync and read. Raises UNAVAILABLE."""
        now = self._due()
        await self._run(lambda: self._execute("UPDATE heartbeat SET at = ?", (now,)))
        self._read("SELECT at FROM heartbeat", ())

    async def close(self) -> None:
        """Finish the accepted jobs, then close the file. A second call does nothing."""
        if await self._commits.close():
            self._file.close()

    async def _run(self, work: Callable[[], T], committed: Callable[[T], None] | None = None) -> T:
        try:
            return await self._commits.run(work, committed)
        except StorageError as error:
            raise store_unavailable() from error

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            return self._file.reader.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            log.error("a read failed: %s", error)
            raise store_unavailable() from error

    def _transact(self, request: Request) -> Plan:
        planned = plan_or_replay(self._codecs, request, self._find_record, self._find, self._clock.now(), self._epoch)
        for write in planned.writes:
            apply(self._execute, write)
        for event in planned.outbox:
            self._execute(_ADD_OUTBOX, (*event[:4], micros(event.time), *event[5:]))
        if planned.record:
            self._execute(_ADD_RECORD, planned.record)
        return planned

    def _find_record(self, key: str) -> IdempotencyRow | None:
        row = self._execute(_RECORD, (key,)).fetchone()
        return IdempotencyRow(*row) if row else None

    def _find(self, ref: Ref) -> Stored | None:
        """Return the stored entity, or None. An expired entity is removed, so that a new one begins at version 1."""
        kind = self._codecs.of(ref.type).name
        row = self._execute(GET, (kind, ref.id)).fetchone()
        if row is None:
            return None
        stored = Stored(*row)
        if stored.expires is not None and stored.is_over(self._due()):
            self._remove(kind, ref.id, stored)
            return None
        return stored

    def _committed(self, planned: Plan) -> None:
        self._depth += len(planned.outbox)
        self._notify(planned.outbox)

    def _remove_outbox(self, chunk: list[tuple[str]]) -> int:
        return self._file.writer.executemany("DELETE FROM outbox WHERE id = ?", chunk).rowcount

    def _outbox_removed(self, count: int) -> None:
        self._depth -= count

    def _expire_entities(self, due: int, limit: int) -> int:
        rows = self._execute(_DUE, (due, limit)).fetchall()
        for kind, key, *stored in rows:
            self._remove(kind, key, Stored(*stored))
        return len(rows)

    def _expire_records(self, due: int, limit: int) -> int:
        return self._execute(_EXPIRE_RECORDS, (due, limit)).rowcount

    def _remove(self, kind: str, entity_id: str, old: Stored) -> None:
        apply(self._execute, Write(kind, entity_id, old, None, (), decode_keys(old.keys)))

    def _due(self) -> int:
        return micros(self._clock.now())
