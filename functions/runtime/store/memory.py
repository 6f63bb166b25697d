"""The store in memory, for unit tests. Its data end with the process."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import Any

from events.catalog import CATALOG, Payload
from events.outbox import OutboxRow
from functions.runtime.clock import Clock
from functions.runtime.store.base import Found, Range, StoreBase
from functions.runtime.store.codec import decode_keys, decoder, micros
from functions.runtime.store.epochs import next_epoch
from functions.runtime.store.planning import IdempotencyRow, Plan, Request, Stored, Write, plan_or_replay
from functions.runtime.store.port import EntityMapping, IndexKey, Ref, store_unavailable
from functions.runtime.store.search import Query


class MemoryStore(StoreBase):
    """An implementation of the port with dictionaries.

    To simulate lost races, each `change` is called `lost_races` times, and the results are discarded, before the call
    that counts. With a value of 1, a unit test detects a `change` that is not pure.
    """

    def __init__(self, mappings: Sequence[EntityMapping[Any]], clock: Clock, *, lost_races: int = 0) -> None:
        super().__init__(mappings, clock)
        self._lost_races = lost_races
        self._entities: dict[tuple[str, str], Stored] = {}
        self._entries: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
        self._records: dict[str, IdempotencyRow] = {}
        self._outbox: dict[str, OutboxRow] = {}
        self._closed = False
        self._epoch = 0

    def begin_epoch(self) -> None:
        """Begin a new epoch, as a restore does."""
        self._epoch = next_epoch(self._epoch, self._clock.now())

    @property
    def events(self) -> list[Payload]:
        """The events in the outbox, decoded, oldest first."""
        return [decoder(CATALOG[row.type]).decode(row.data) for row in self._outbox.values()]

    async def _read_many(self, kind: str, ids: Sequence[str]) -> Mapping[str, bytes]:
        self._check_open()
        found = {entity_id: self._living(kind, entity_id) for entity_id in ids}
        return {entity_id: stored.data for entity_id, stored in found.items() if stored}

    async def _read_range(self, wanted: Range, limit: int) -> Sequence[Found]:
        self._check_open()
        entries = self._entries.get((wanted.kind, wanted.name, wanted.partition), [])
        after, end = wanted.after, len(entries)
        if wanted.until is not None:
            end = bisect_right(entries, wanted.until, key=lambda entry: entry[0])
        if wanted.descending:
            places: Iterable[int] = reversed(range(end if after is None else min(end, bisect_left(entries, after))))
        else:
            places = range(0 if after is None else bisect_right(entries, after), end)
        living = ((*entries[place], self._living(wanted.kind, entries[place][1])) for place in places)
        return list(islice(((sort, key, stored.data) for sort, key, stored in living if stored), limit))

    async def _read_matching(self, query: Query, limit: int) -> tuple[Sequence[Found], str | None]:
        self._check_open()
        lists = [
            [self._entries.get((query.kind, term.name, part), []) for part in term.partitions] for term in query.terms
        ]
        common = set[tuple[str, str]].intersection(*(set(chain.from_iterable(parts)) for parts in lists))
        living = (
            (sort, key, stored.data)
            for sort, key in sorted(common, reverse=True)
            if (query.below is None or sort < query.below)
            and (stored := self._living(query.kind, key))
            and all(text in stored.data for text in query.containing)
        )
        found = list(islice(living, limit))
        return found, found[-1][0] if len(found) == limit else None

    async def _commit(self, request: Request) -> Any:
        self._check_open()
        now = self._clock.now()
        make_plan = partial(plan_or_replay, self._codecs, request, self._records.get, self._find, now, self._epoch)
        for _ in range(self._lost_races):
            make_plan()
        planned = make_plan()
        self._apply(planned)
        return planned.result

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]:
        self._check_open()
        return [row for row in self._outbox.values() if row.time < before][:limit]

    async def outbox_published(self, ids: Sequence[str]) -> None:
        self._check_open()
        for row_id in ids:
            self._outbox.pop(row_id, None)

    async def outbox_state(self) -> tuple[int, datetime | None]:
        self._check_open()
        return len(self._outbox), next((row.time for row in self._outbox.values()), None)

    async def expire(self, now: datetime, limit: int = 1000) -> int:
        self._check_open()
        due = micros(now)
        entities = [(key, stored) for key, stored in self._entities.items() if stored.is_over(due)][:limit]
        for (kind, key), stored in entities:
            self._write(Write(kind, key, stored, None, (), decode_keys(stored.keys)))
        records = [row.key for row in self._records.values() if row.expires <= due][: limit - len(entities)]
        for record in records:
            del self._records[record]
        return len(entities) + len(records)

    async def epoch(self) -> int:
        return self._epoch

    async def ping(self) -> None:
        """Raise UNAVAILABLE if the store is closed."""
        self._check_open()

    async def close(self) -> None:
        """Refuse every later call."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise store_unavailable("The store is closed.")

    def _living(self, kind: str, entity_id: str) -> Stored | None:
        stored = self._entities.get((kind, entity_id))
        return None if stored is None or stored.is_over(micros(self._clock.now())) else stored

    def _find(self, ref: Ref) -> Stored | None:
        """Return the stored entity, or None. An expired entity is removed, so that a new one begins at version 1."""
        kind = self._codecs.of(ref.type).name
        living, stored = self._living(kind, ref.id), self._entities.get((kind, ref.id))
        if living is None and stored is not None:
            self._write(Write(kind, ref.id, stored, None, (), decode_keys(stored.keys)))
        return living

    def _apply(self, planned: Plan) -> None:
        for write in planned.writes:
            self._write(write)
        if planned.record:
            self._records[planned.record.key] = planned.record
        self._outbox.update((row.id, row) for row in planned.outbox)
        self._notify(planned.outbox)

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
