"""The store in memory, for unit tests and for trying things out: nothing outlives the process."""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from events.catalog import CATALOG, Payload
from events.outbox import OutboxRow
from functions.runtime.clock import Clock
from functions.runtime.errors import unavailable
from functions.runtime.store.codec import CodecRegistry, decode_keys, decoder, micros
from functions.runtime.store.cursors import Listing, cursor_after, lower_bound
from functions.runtime.store.epochs import next_epoch
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
from functions.runtime.store.port import (
    Changes,
    Entity,
    EntityMapping,
    IdempotencyRecord,
    IndexKey,
    Page,
    Ref,
)
from functions.runtime.store.single import single
from observability.context import current

E = TypeVar("E", bound=Entity)
R = TypeVar("R")

_log = logging.getLogger("shop.store")


class MemoryStore:
    """The port over dictionaries.

    `lost_races` is how often each `change` runs in vain before it counts, as when another writer was
    faster: with 1, a unit test finds a `change` that is not pure.
    """

    def __init__(self, mappings: Sequence[EntityMapping[Any]], clock: Clock, *, lost_races: int = 0) -> None:
        self._shapes = CodecRegistry(mappings)
        self._clock = clock
        self._lost_races = lost_races
        self._entities: dict[tuple[str, str], Stored] = {}
        self._entries: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
        self._records: dict[str, IdempotencyRow] = {}
        self._outbox: dict[str, OutboxRow] = {}
        self._listeners: list[Callable[[Sequence[OutboxRow]], None]] = []
        self._closed = False
        self._epoch = 0

    def begin_epoch(self) -> None:
        """Go on as a store that was restored and has the state of this moment."""
        self._epoch = next_epoch(self._epoch, self._clock.now())

    @property
    def events(self) -> list[Payload]:
        """What waits in the outbox, decoded, oldest first."""
        return [decoder(CATALOG[row.type]).decode(row.data) for row in self._outbox.values()]

    async def get(self, cls: type[E], entity_id: str) -> E | None:
        """The entity as last committed, or None."""
        self._check_open()
        codec = self._shapes.of(cls)
        found = self._living(codec.name, entity_id, micros(self._clock.now()))
        return codec.decode(found.data) if found else None

    async def get_many(self, cls: type[E], ids: Sequence[str]) -> dict[str, E]:
        """Those of `ids` that exist, by id."""
        self._check_open()
        codec = self._shapes.of(cls)
        due = micros(self._clock.now())
        found = {key: self._living(codec.name, key, due) for key in ids}
        return {key: codec.decode(stored.data) for key, stored in found.items() if stored}

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
        self._check_open()
        codec = self._shapes.of(cls)
        listing = Listing(codec.name, index, partition, descending, self._epoch)
        entries = self._entries.get((codec.name, index, partition), [])
        after = lower_bound(listing, cursor, since)
        end = len(entries) if until is None else bisect_right(entries, until, key=lambda entry: entry[0])
        if descending:
            end = end if after is None else min(end, bisect_left(entries, after))
            places: Iterable[int] = reversed(range(end))
        else:
            places = range(0 if after is None else bisect_right(entries, after), end)
        due = micros(self._clock.now())
        living = ((entries[place], self._living(codec.name, entries[place][1], due)) for place in places)
        chosen = list(islice(((entry, stored) for entry, stored in living if stored), limit + 1))
        fit = fitting((len(stored.data) for _, stored in chosen), limit)
        items = [codec.decode(stored.data) for _, stored in chosen[:fit]]
        more = len(chosen) > fit
        return Page(items, cursor_after(listing, *chosen[fit - 1][0]) if more else None)

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
        self._check_open()
        now = self._clock.now()
        if idempotency:
            done, answer = replay(idempotency, self._records.get(idempotency.key), now)
            if done:
                result: R = answer
                return result
        found = {ref: self._found(self._shapes.of(ref.type).name, ref.id, micros(now)) for ref in refs}
        stored = {ref: row for ref, row in found.items() if row}
        request = Request(refs, change, idempotency, current())
        for _ in range(self._lost_races):
            plan(self._shapes, request, stored, now, self._epoch)
        planned = plan(self._shapes, request, stored, now, self._epoch)
        self._apply(planned)
        answered: R = planned.result
        return answered

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]:
        """Rows written before `before`, oldest first."""
        self._check_open()
        return [row for row in self._outbox.values() if row.time < before][:limit]

    async def outbox_published(self, ids: Sequence[str]) -> None:
        """Forget these rows."""
        self._check_open()
        for row_id in ids:
            self._outbox.pop(row_id, None)

    async def outbox_state(self) -> tuple[int, datetime | None]:
        """How many rows wait, and when the oldest was written."""
        self._check_open()
        return len(self._outbox), next((row.time for row in self._outbox.values()), None)

    def on_commit(self, listener: Callable[[Sequence[OutboxRow]], None]) -> None:
        """Call `listener` with the rows of every commit."""
        self._listeners.append(listener)

    async def expire(self, now: datetime, limit: int = 1000) -> int:
        """Remove entities and guards whose time is over; how many."""
        self._check_open()
        due = micros(now)
        entities = [
            (key, stored)
            for key, stored in self._entities.items()
            if stored.expires is not None and stored.expires <= due
        ][:limit]
        for (kind, key), stored in entities:
            self._write(Write(kind, key, stored, None, (), decode_keys(stored.keys)))
        records = [row.key for row in self._records.values() if row.expires <= due][: limit - len(entities)]
        for record in records:
            del self._records[record]
        return len(entities) + len(records)

    def request_purge(self) -> None:
        """There are no files."""

    async def epoch(self) -> int:
        """Which life of the data this is."""
        return self._epoch

    async def ping(self) -> None:
        """Raises UNAVAILABLE once closed."""
        self._check_open()

    async def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise unavailable("STORE_UNAVAILABLE", "The store is closed.")

    def _living(self, kind: str, entity_id: str, due: int) -> Stored | None:
        stored = self._entities.get((kind, entity_id))
        return None if stored is None or stored.is_over(due) else stored

    def _found(self, kind: str, entity_id: str, due: int) -> Stored | None:
        """What a transaction finds; what is over makes room."""
        stored = self._entities.get((kind, entity_id))
        if stored is None or not stored.is_over(due):
            return stored
        self._write(Write(kind, entity_id, stored, None, (), decode_keys(stored.keys)))
        return None

    def _apply(self, planned: Plan) -> None:
        for write in planned.writes:
            self._write(write)
        if planned.record:
            self._records[planned.record.key] = planned.record
        self._outbox.update((row.id, row) for row in planned.outbox)
        for listener in self._listeners if planned.outbox else ():
            try:
                listener(planned.outbox)
            except Exception:
                _log.exception("a commit listener failed")

    def _write(self, write: Write) -> None:
        for key in write.removed:
            self._partition(write.kind, key).remove((key.sort, write.id))
        for key in write.added:
            insort(self._partition(write.kind, key), (key.sort, write.id))
        if write.new:
            self._entities[write.kind, write.id] = write.new
        else:
            del self._entities[write.kind, write.id]

    def _partition(self, kind: str, key: IndexKey) -> list[tuple[str, str]]:
        return self._entries.setdefault((kind, key.name, key.partition), [])
