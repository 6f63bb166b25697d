"""The store on PostgreSQL, with one schema for each domain, which any number of processes may share.

A read costs one round trip. A transaction costs two: a statement that reads the entities and the idempotency record,
and a call of the function `commit_1`. The function commits everything if every entity is as it was read, whether
`change` writes it or only reads it. No transaction is open between the two, so nothing is locked while `change` runs.
If the caller expects that nothing exists yet, the read is skipped. If the commit then finds a row, the transaction is
repeated with the read.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from events.outbox import OutboxRow
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, invalid
from functions.runtime.store.base import Found, Range, StoreBase, log
from functions.runtime.store.codec import from_micros, micros
from functions.runtime.store.groups import Draft, Groups, Job, entries_of
from functions.runtime.store.planning import IdempotencyRow, Request, Stored, Write
from functions.runtime.store.port import EntityMapping, Ref, store_unavailable
from functions.runtime.store.postgres.client import Connection, Database, LostRace, Refused, Retriable, Unsure
from functions.runtime.store.postgres.rows import (
    Condition,
    Row,
    Statements,
    commit_values,
    escape,
    outbox_row,
    unescape,
)
from functions.runtime.store.postgres.schema import SchemaError, check
from functions.runtime.store.search import COUNTED, FEW, Query, plan_search
from observability.failpoints import failpoint

_CHUNK = 200  # maximum number of expired entities that one transaction removes
_TOO_LONG = "54000"  # the SQLSTATE of a value that is too long for an index


class Snapshot(NamedTuple):
    """The rows that one statement read: entities and idempotency records."""

    entities: Mapping[Ref, Row]
    records: Mapping[str, IdempotencyRow]


class Attempt(NamedTuple):
    """A commit whose outcome is unknown: its planned writes, and the rows that it was based on."""

    draft: Draft
    snapshot: Snapshot
    mark: int
    conditions: Sequence[Condition]


class PostgresStore(StoreBase):
    """An implementation of the port on one schema, which the migration has created.

    Keys of more than about 2,600 bytes raise INVALID_ARGUMENT (ID_TOO_LONG). Tests pass a `database` that fails.
    """

    def __init__(
        self,
        schema: str,
        mappings: Sequence[EntityMapping[Any]],
        clock: Clock,
        connection: Connection,
        *,
        database: Database | None = None,
    ) -> None:
        super().__init__(mappings, clock)
        self._database = database or Database(connection)
        self._statements = Statements(schema)
        self._groups = Groups(self._run_group, (Refused,))
        self._epoch: int | None = None

    async def _read_many(self, kind: str, ids: Sequence[str]) -> Mapping[str, bytes]:
        if not ids:
            return {}
        keys = {escape(entity_id): entity_id for entity_id in ids}
        found = dict(await self._fetch(self._statements.get, kind, list(keys), self._due()))
        return {entity_id: found[key] for key, entity_id in keys.items() if key in found}

    async def _read_range(self, wanted: Range, limit: int) -> Sequence[Found]:
        after, until = wanted.after, wanted.until
        sql = self._statements.page(after=after is not None, until=until is not None, descending=wanted.descending)
        bounds = [*(after or ()), *(() if until is None else (until,))]
        values = (wanted.kind, wanted.name, escape(wanted.partition), self._due(), limit)
        rows = await self._fetch(sql, *values, *map(escape, bounds))
        return [(unescape(sort), unescape(entity_id), data) for sort, entity_id, data in rows]

    async def _read_matching(self, query: Query, limit: int) -> tuple[Sequence[Found], str | None]:
        listings, below = query.listings(), [] if query.below is None else [escape(query.below)]
        if query.is_indexed():
            sql = self._statements.few(len(query.terms), below=bool(below), containing=len(query.containing))
            terms = [[f"{term.name} {escape(part)}" for part in term.partitions] for term in query.terms]
            rows = await self._fetch(sql, query.kind, self._due(), limit, FEW, *terms, *below, *query.containing)
            if rows[0][0] <= FEW:
                few = [(unescape(sort), unescape(key), data) for _, sort, key, data in rows if data is not None]
                return few, few[-1][0] if len(few) == limit else None
        names, partitions = [name for name, _ in listings], [escape(partition) for _, partition in listings]
        sql = self._statements.count(below=bool(below))
        counts = await self._fetch(sql, query.kind, names, partitions, COUNTED, *below)
        plan = plan_search(query, counts)
        if plan is None:
            return (), None
        floor = [] if plan.floor is None else [plan.floor]
        sql = self._statements.search(
            len(plan.driver),
            len(plan.others),
            below=bool(below),
            floor=bool(floor),
            containing=len(query.containing),
        )
        values: list[Any] = [query.kind, self._due(), limit, *below, *floor]
        for name, partition in plan.driver:
            values += [name, escape(partition)]
        for term in plan.others:
            values += [term[0][0], [escape(partition) for _, partition in term]]
        found, rest = plan.result(await self._fetch(sql, *values, *query.containing), limit)
        return [(unescape(sort), unescape(key), data) for sort, key, data in found], rest and unescape(rest)

    async def _commit(self, request: Request) -> Any:
        keys = [f"{self._codecs.of(ref.type).name}/{ref.id}" for ref in request.refs]
        if request.idempotency:
            keys.append(f"/{request.idempotency.key}")
        return await self._groups.run(Job(request, keys, self._database.begin()))

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]:
        return [outbox_row(row) for row in await self._fetch(self._statements.outbox, micros(before), limit)]

    async def outbox_published(self, ids: Sequence[str]) -> None:
        failpoint("postgres.forget.before")
        await self._fetch(self._statements.outbox_published, list(ids))
        failpoint("postgres.forget.after")

    async def outbox_state(self) -> tuple[int, datetime | None]:
        ((count, oldest),) = await self._fetch(self._statements.outbox_state)
        return count, None if oldest is None else from_micros(oldest)

    async def expire(self, now: datetime, limit: int = 1000) -> int:
        due, removed = micros(now), 0
        while removed < limit:
            chunk = min(_CHUNK, limit - removed)
            rows = await self._fetch(self._statements.due, due, chunk)
            count = await self._remove([_removal(row) for row in rows], due)
            removed += count
            if len(rows) < chunk or count == 0:
                break
        if removed < limit:
            ((count,),) = await self._fetch(self._statements.expire_records, due, limit - removed)
            removed += count
        return removed

    async def epoch(self) -> int:
        return await self._ready(self._database.begin())

    async def ping(self) -> None:
        """Check that the server answers and accepts writes, and, at the first call, the schema's version.

        Raises UNAVAILABLE.
        """
        deadline = self._database.begin()
        await self._ready(deadline)
        ((read_only,),) = await self._database.fetch(deadline, self._statements.ping)
        if read_only:  # a connection to a server that was the primary
            await self._database.refresh()
            raise store_unavailable()

    async def close(self) -> None:
        """Finish the commits in progress, and refuse all later calls."""
        await self._groups.close()
        await self._database.close()

    async def _ready(self, deadline: float) -> int:
        """Check the schema at the first call. Returns the epoch. Raises UNAVAILABLE if the schema cannot be used."""
        if self._epoch is None:
            ((version, serves, epoch),) = await self._database.fetch(deadline, self._statements.state)
            try:
                check(self._statements.schema, version, serves)
            except SchemaError as error:
                log.error("store_schema: %s", error)
                raise store_unavailable() from error
            self._epoch = epoch
        return self._epoch

    async def _fetch(self, sql: str, *values: Any) -> Sequence[Any]:
        deadline = self._database.begin()
        await self._ready(deadline)
        return await self._database.fetch(deadline, sql, *values)

    async def _run_group(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Commit these jobs as one transaction, and set their outcomes."""
        try:
            await self._run(jobs)
        except Refused as error:
            if len(jobs) == 1 and error.code == _TOO_LONG:
                raise invalid("This id is too long.", reason="ID_TOO_LONG") from error
            raise
        return ()

    async def _run(self, jobs: Sequence[Job]) -> None:
        """Read, plan and commit, and repeat this after a lost race or a transient fault.

        If the connection is lost during a commit, the next read shows whether it took effect. If that cannot be known
        because others have written since, the jobs fail with UNAVAILABLE, because a repetition could apply them twice.
        """
        deadline = self._database.begin()
        epoch = await self._ready(deadline)
        unsure: list[Attempt] = []
        failures = 0
        guess = len(jobs) == 1 and jobs[0].request.likely_new
        while True:
            snapshot = Snapshot({}, {}) if guess else await self._read(jobs, deadline)
            for attempt in unsure:
                if await self._took_effect(attempt, snapshot, deadline):
                    self._committed(attempt.draft)
                    return
            draft = self._draft(jobs, snapshot, epoch)
            conditions = [self._condition(ref, write, snapshot) for ref, write in draft.writes()]
            if not (conditions or draft.outbox or draft.records):
                if guess:  # without a commit, only a read shows whether the entities exist
                    guess = False
                    continue
                draft.settle()
                return
            mark = random.getrandbits(63)
            try:
                await self._send(conditions, mark, draft, deadline)
            except Unsure as error:
                unsure.append(Attempt(draft, snapshot, mark, conditions))
                await self._database.pause(failures, deadline, error)
            except (LostRace, Retriable) as error:
                if not guess:
                    await self._database.pause(failures, deadline, error)
            else:
                self._committed(draft)
                return
            failures += 1
            guess = False

    async def _read(self, jobs: Sequence[Job], deadline: float) -> Snapshot:
        refs = {(self._codecs.of(ref.type).name, escape(ref.id)): ref for job in jobs for ref in job.request.refs}
        keys = {escape(it.key): it.key for job in jobs if (it := job.request.idempotency)}
        kinds, ids = [kind for kind, _ in refs], [entity_id for _, entity_id in refs]
        rows = await self._database.fetch(deadline, self._statements.read, list(keys), kinds, ids)
        entities: dict[Ref, Row] = {}
        records: dict[str, IdempotencyRow] = {}
        for kind, key, version, expires, mark, fingerprint, data, indexed in rows:
            if kind is None:
                records[keys[key]] = IdempotencyRow(keys[key], fingerprint, data, expires)
            else:
                entities[refs[kind, key]] = Row(Stored(version, data, indexed, expires), mark)
        return Snapshot(entities, records)

    def _draft(self, jobs: Sequence[Job], snapshot: Snapshot, epoch: int) -> Draft:
        entities = {ref: row.stored for ref, row in snapshot.entities.items()}
        draft = Draft(self._codecs, entities, snapshot.records, self._clock.now(), epoch)
        for job in jobs:
            draft.add(job)
        return draft

    def _condition(self, ref: Ref, write: Write | None, snapshot: Snapshot) -> Condition:
        return Condition(self._codecs.of(ref.type).name, ref.id, snapshot.entities.get(ref), write)

    async def _send(self, conditions: Sequence[Condition], mark: int, draft: Draft, deadline: float) -> None:
        values = commit_values(conditions, mark, draft.outbox, draft.records.values(), self._due())
        failpoint("postgres.commit.before")
        ((done,),) = await self._database.once(deadline, self._statements.commit, *values)
        failpoint("postgres.commit.after")
        if not done:
            raise LostRace("changed")

    async def _took_effect(self, attempt: Attempt, snapshot: Snapshot, deadline: float) -> bool:
        """Return whether a commit of unknown outcome took effect.

        If it did not, it may still take effect later, but then the next attempt fails, because both have the same
        conditions. Raises UNAVAILABLE if that cannot be known.
        """
        marks = {row.mark for row in snapshot.entities.values()}
        if attempt.mark in marks:
            return True
        draft = attempt.draft
        if draft.outbox:
            ids = [row.id for row in draft.outbox]
            if await self._database.fetch(deadline, self._statements.outbox_has, ids):
                return True
        unchanged = (
            all(snapshot.entities.get(ref) == attempt.snapshot.entities.get(ref) for ref, _ in draft.writes())
            and snapshot.records.keys() == attempt.snapshot.records.keys()
        )
        if not unchanged and not draft.records:
            log.error("the outcome of a commit is unknown")
            raise store_unavailable()
        return False

    def _committed(self, draft: Draft) -> None:
        draft.settle()
        self._notify(draft.outbox)

    async def _remove(self, removals: Sequence[Condition], due: int) -> int:
        """Remove these entities, and return how many were removed. `due` is the current time, as in `commit_values`.

        They are removed in one transaction. If that loses a race, each is removed by itself.
        """
        if not removals:
            return 0
        try:
            ((done,),) = await self._fetch(self._statements.commit, *commit_values(removals, 0, (), (), due))
        except ServiceError:
            if len(removals) == 1:
                raise
            done = False
        if done:
            return len(removals)
        if len(removals) == 1:
            return 0
        return sum([await self._remove([removal], due) for removal in removals])

    def _due(self) -> int:
        return micros(self._clock.now())


def _removal(row: Any) -> Condition:
    kind, key, version, expires, mark, keys = row
    old, entity_id = Stored(version, b"", keys, expires), unescape(key)
    return Condition(kind, entity_id, Row(old, mark), Write(kind, entity_id, old, None, (), entries_of(old)))
