"""The store on SQLite: one file per domain, durable before it answers (WAL, FULL, group commit)."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from events.catalog import Payload
from events.outbox import OutboxRow
from functions.runtime.clock import Clock
from functions.runtime.errors import unavailable
from functions.runtime.store.codec import CodecRegistry, decode_keys, from_micros, micros
from functions.runtime.store.cursors import Listing, cursor_after, lower_bound
from functions.runtime.store.planning import (
    IdempotencyRow,
    Plan,
    Request,
    Stored,
    Write,
    fitting,
    plan,
    replay,
)
from functions.runtime.store.port import Changes, Entity, EntityMapping, IdempotencyRecord, Page, Ref
from functions.runtime.store.single import single
from functions.runtime.store.sqlite import rows as rows_of
from functions.runtime.store.sqlite.file import SQLiteFile
from functions.runtime.store.sqlite.group_commit import GroupCommit
from observability.context import current

E = TypeVar("E", bound=Entity)
R = TypeVar("R")

_log = logging.getLogger("shop.store")
_PATIENCE = 5.0  # seconds
_CHUNK = 100  # rows that one job removes: the event loop waits no longer than for these

_GUARD = "SELECT key, fingerprint, answer, expires FROM guard WHERE key = ?"
_ADD_GUARD = "INSERT OR REPLACE INTO guard VALUES (?, ?, ?, ?)"
_ADD_OUTBOX = "INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OUTBOX = "SELECT * FROM outbox WHERE time < ? ORDER BY id LIMIT ?"
_DUE = "SELECT kind, id, version, data, keys, expires FROM entity WHERE expires <= ? LIMIT ?"
_EXPIRE_GUARDS = "DELETE FROM guard WHERE key IN (SELECT key FROM guard WHERE expires <= ? LIMIT ?)"


class SQLiteStore:
    """The port over one file, which it alone writes.

    Every statement runs on the event loop's thread, where it takes microseconds; only COMMIT, which waits
    for the disk, runs in a thread. Reads see what is committed, and never wait. Since all writes go through
    one connection in turn, no race is ever lost, and the versions need no check of their own. `connection`
    is for tests of failing disks.
    """

    def __init__(
        self,
        path: Path,
        mappings: Sequence[EntityMapping[Any]],
        clock: Clock,
        *,
        patience: float = _PATIENCE,
        connection: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self._shapes = CodecRegistry(mappings)
        self._clock = clock
        self._file = SQLiteFile(path, connection)
        self._write = self._file.writer.execute
        self._commits = GroupCommit(self._file.writer, patience)
        self._traces = True  # of what was removed there may be some: maybe by a process that was killed
        self._listeners: list[Callable[[Sequence[OutboxRow]], None]] = []
        self._epoch: int = self._file.reader.execute("SELECT began FROM epoch").fetchone()[0]
        self._depth: int = self._file.reader.execute("SELECT COUNT(*) FROM outbox").fetchone()[0]

    async def get(self, cls: type[E], entity_id: str) -> E | None:
        """The entity as last committed, or None."""
        codec = self._shapes.of(cls)
        for (data,) in self._read(rows_of.GET_DATA, (codec.name, entity_id, self._due())):
            return codec.decode(data)
        return None

    async def get_many(self, cls: type[E], ids: Sequence[str]) -> dict[str, E]:
        """Those of `ids` that exist, by id."""
        codec, due = self._shapes.of(cls), self._due()
        return {
            entity_id: codec.decode(data)
            for entity_id in ids
            for (data,) in self._read(rows_of.GET_DATA, (codec.name, entity_id, due))
        }

    async def page(
        self,
        cls: type[E],
        index: str,
        partition: str,
        *,
        limit: int,
        cursor: str | None = None,
        descending: bool = False,
        until: str | None = None,
        since: str | None = None,
    ) -> Page[E]:
        """Entities of one partition by sort key, from `cursor` on, up to `until`."""
        codec = self._shapes.of(cls)
        listing = Listing(codec.name, index, partition, descending, self._epoch)
        values: list[Any] = [codec.name, index, partition]
        after = lower_bound(listing, cursor, since)
        if after:
            values.extend(after)
        if until is not None:
            values.append(until)
        sql = rows_of.page_statement(after=after is not None, until=until is not None, descending=descending)
        rows = self._read(sql, (*values, self._due(), limit + 1))
        fit = fitting((len(data) for _, _, data in rows), limit)
        items = [codec.decode(data) for _, _, data in rows[:fit]]
        more = len(rows) > fit
        return Page(items, cursor_after(listing, *rows[fit - 1][:2]) if more else None)

    async def update(
        self,
        cls: type[E],
        entity_id: str,
        change: Callable[[E | None], tuple[E, Sequence[Payload]]],
        *,
        idempotency: IdempotencyRecord | None = None,
    ) -> E:
        """Create or change one entity."""
        return await self.transact([Ref(cls, entity_id)], single(change), idempotency=idempotency)

    async def transact(
        self,
        refs: Sequence[Ref],
        change: Callable[[Sequence[Any]], Changes[R]],
        *,
        idempotency: IdempotencyRecord | None = None,
    ) -> R:
        """Change several entities at once."""
        request = Request(refs, change, idempotency, current())
        planned = await self._commits.run(partial(self._transact, request), self._committed)
        result: R = planned.result
        return result

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]:
        """Rows written before `before`, oldest first."""
        rows = self._read(_OUTBOX, (micros(before), limit))
        return [OutboxRow._make((*row[:4], from_micros(row[4]), *row[5:])) for row in rows]

    async def outbox_published(self, ids: Sequence[str]) -> None:
        """Forget these rows."""
        for start in range(0, len(ids), _CHUNK):
            chunk = [(row_id,) for row_id in ids[start : start + _CHUNK]]
            await self._commits.run(partial(self._forget, chunk), self._forgotten)

    async def outbox_state(self) -> tuple[int, datetime | None]:
        """How many rows wait, and when the oldest was written."""
        rows = self._read("SELECT time FROM outbox ORDER BY id LIMIT 1", ())
        return self._depth, from_micros(rows[0][0]) if rows else None

    def on_commit(self, listener: Callable[[Sequence[OutboxRow]], None]) -> None:
        """Call `listener` with the rows of every commit."""
        self._listeners.append(listener)

    async def expire(self, now: datetime, limit: int = 1000) -> int:
        """Remove entities and guards whose time is over; how many."""
        removed = 0
        for remove in (self._expire_entities, self._expire_guards):
            chunk = count = min(_CHUNK, limit - removed)
            while chunk and count == chunk:
                count = await self._commits.run(partial(remove, micros(now), chunk))
                removed += count
                chunk = min(_CHUNK, limit - removed)
        if self._traces:
            self._traces = False
            if not await self._commits.run_exclusive(self._file.purge):
                self._traces = True
        return removed

    def request_purge(self) -> None:
        """What was just removed names a person."""
        self._traces = True

    async def epoch(self) -> int:
        """Which life of the data this is."""
        return self._epoch

    async def ping(self) -> None:
        """Write, sync and read; raises UNAVAILABLE."""
        beat = micros(self._clock.now())
        await self._commits.run(lambda: self._write("UPDATE heartbeat SET at = ?", (beat,)))
        self._read("SELECT at FROM heartbeat", ())

    async def close(self) -> None:
        """Finish what is under way, then close the file; once more does nothing."""
        if await self._commits.close():
            self._file.close()

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            return self._file.reader.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            _log.error("a read failed: %s", error)
            raise unavailable("STORE_UNAVAILABLE", "The store cannot be reached at the moment.") from error

    def _transact(self, request: Request) -> Plan:
        now, idempotency = self._clock.now(), request.idempotency
        if idempotency:
            record = self._write(_GUARD, (idempotency.key,)).fetchone()
            done, answer = replay(idempotency, IdempotencyRow(*record) if record else None, now)
            if done:
                return Plan(answer, (), (), None)
        found: dict[Ref, Stored] = {}
        for ref in request.refs:
            kind = self._shapes.of(ref.type).name
            row = self._write(rows_of.GET, (kind, ref.id)).fetchone()
            if row is None:
                continue
            stored = Stored(*row)
            if stored.is_over(micros(now)):  # makes room for one that starts afresh
                self._remove(kind, ref.id, stored)
            else:
                found[ref] = stored
        planned = plan(self._shapes, request, found, now, self._epoch)
        for write in planned.writes:
            rows_of.apply(self._write, write)
        for event in planned.outbox:
            self._write(_ADD_OUTBOX, (*event[:4], micros(event.time), *event[5:]))
        if planned.record:
            self._write(_ADD_GUARD, planned.record)
        return planned

    def _committed(self, planned: Plan) -> None:
        if not planned.outbox:
            return
        self._depth += len(planned.outbox)
        for listener in self._listeners:
            try:
                listener(planned.outbox)
            except Exception:
                _log.exception("a commit listener failed")

    def _forget(self, chunk: list[tuple[str]]) -> int:
        return self._file.writer.executemany("DELETE FROM outbox WHERE id = ?", chunk).rowcount

    def _forgotten(self, count: int) -> None:
        self._depth -= count

    def _expire_entities(self, due: int, limit: int) -> int:
        rows = self._write(_DUE, (due, limit)).fetchall()
        for kind, key, *stored in rows:
            self._remove(kind, key, Stored(*stored))
        return len(rows)

    def _remove(self, kind: str, entity_id: str, old: Stored) -> None:
        rows_of.apply(self._write, Write(kind, entity_id, old, None, (), decode_keys(old.keys)))

    def _due(self) -> int:
        return micros(self._clock.now())

    def _expire_guards(self, due: int, limit: int) -> int:
        return self._write(_EXPIRE_GUARDS, (due, limit)).rowcount
