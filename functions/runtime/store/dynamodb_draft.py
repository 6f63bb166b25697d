"""A group of transactions on its way to be one: each sees what those before it would write."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from events.outbox import OutboxRow
from functions.runtime.store import dynamodb_layout as layout
from functions.runtime.store.codec import CodecRegistry
from functions.runtime.store.dynamodb_actions import LARGEST, Action, Actions, TooLarge, merged
from functions.runtime.store.dynamodb_groups import Job
from functions.runtime.store.dynamodb_layout import Item
from functions.runtime.store.planning import IdempotencyRow, Plan, Request, Stored, Write, plan, replay
from functions.runtime.store.port import Ref


class Draft:
    """Begun on what was read: `items` by their `pk`, none of them over."""

    def __init__(self, codecs: CodecRegistry, items: Mapping[str, Item], now: datetime, epoch: int) -> None:
        self._shapes = codecs
        self._items = items
        self._now = now
        self._epoch = epoch
        self._entities: dict[Ref, Stored] = {}  # as the next job is to find them
        self._touched: set[Ref] = set()
        self._read: dict[Ref, None] = {}  # what those that write anything relied on
        self._records: dict[str, IdempotencyRow] = {}
        self._size = 0
        self.outbox: list[OutboxRow] = []
        self.outcomes: list[tuple[Job, Any, Exception | None]] = []

    def add(self, job: Job) -> bool:
        """Run the job's `change`; False, and nothing is added, when the transaction has no room for it.

        What it returned or raised is its outcome, to be told once the rest has been committed, since it may rest on
        that.
        """
        try:
            done, planned = job.context.run(self._plan, job.request)
        except Exception as error:
            self.outcomes.append((job, None, error))
            return True
        if not done and (planned.writes or planned.outbox or planned.record):
            size = _size(planned) + len(job.request.refs)
            if self._size and self._size + size > LARGEST:
                return False
            self._size += size
            self._keep(job.request, planned)
        self.outcomes.append((job, planned.result, None))
        return True

    def actions(self, make: Actions) -> list[Action]:
        """The whole as one transaction; raises TooLarge."""
        token = uuid4().hex
        actions: list[Action] = []
        for ref in self._read:
            kind, before, after = self._shapes.of(ref.type).name, self._before(ref), self._entities.get(ref)
            condition = self._mark(ref)
            if ref in self._touched and (before or after):
                actions += make.write(merged(kind, ref.id, before, after), condition, token)
            else:
                actions.append(make.check(self._key(ref), condition))
        actions += [make.record(record, self._now) for record in self._records.values()]
        actions += make.outbox(self.outbox, LARGEST - len(actions))
        if len(actions) > LARGEST:
            raise TooLarge(f"this transaction has {len(actions)} items, and DynamoDB allows {LARGEST}")
        return actions

    def _plan(self, request: Request) -> tuple[bool, Plan]:
        if request.idempotency:
            done, answer = replay(request.idempotency, self._record(request.idempotency.key), self._now)
            if done:
                return True, Plan(answer, (), (), None)
        found: dict[Ref, Stored] = {}
        for ref in request.refs:
            stored = self._entities.get(ref) if ref in self._touched else self._before(ref)
            if stored:
                found[ref] = stored
        return False, plan(self._shapes, request, found, self._now, self._epoch)

    def _keep(self, request: Request, planned: Plan) -> None:
        self._read.update(dict.fromkeys(request.refs))
        for write in planned.writes:
            ref = Ref(self._shapes.by_name[write.kind].kind.type, write.id)
            self._touched.add(ref)
            if write.new:
                self._entities[ref] = write.new
            else:
                self._entities.pop(ref, None)
        if planned.record:
            self._records[planned.record.key] = planned.record
        self.outbox += planned.outbox

    def _record(self, key: str) -> IdempotencyRow | None:
        item = self._items.get(layout.record_key(key)["pk"]["S"])
        return self._records.get(key) or (layout.record_of(key, item) if item else None)

    def _before(self, ref: Ref) -> Stored | None:
        item = self._items.get(self._key(ref)["pk"]["S"])
        return layout.stored_of(item) if item else None

    def _mark(self, ref: Ref) -> str | None:
        item = self._items.get(self._key(ref)["pk"]["S"])
        return str(item["v"]["S"]) if item else None

    def _key(self, ref: Ref) -> Item:
        return layout.entity_key(self._shapes.of(ref.type).name, ref.id)


def _size(planned: Plan) -> int:
    """At most so many actions: all the entries of an entity, since all are written when its end moves."""
    return sum(map(_entries, planned.writes)) + len(planned.outbox) + (planned.record is not None)


def _entries(write: Write) -> int:
    return len(layout.entries_of(write.new)) + len(write.removed)
