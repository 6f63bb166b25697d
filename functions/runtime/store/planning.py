"""What every adapter does between reading and writing: run `change`, and work out the rows to write.

Nothing here touches a database, and what can fail on the caller's side fails here, before the first write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from events.catalog import Payload
from events.outbox import OutboxRow
from functions.runtime.errors import invalid
from functions.runtime.ids import uuid7
from functions.runtime.store.codec import (
    Codec,
    CodecRegistry,
    decode_keys,
    decoder,
    encode,
    encode_keys,
    micros,
)
from functions.runtime.store.port import PAGE_BYTES, AlreadyDone, Changes, IdempotencyRecord, IndexKey, Ref
from observability.context import Context


class _EventIds:
    """UUIDv7s that ascend even within a millisecond, so that their order is that of the events."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self) -> str:
        fresh = uuid7()
        self._last = fresh if fresh > self._last else str(UUID(int=UUID(self._last).int + 1))
        return self._last


_event_id = _EventIds()


class Stored(NamedTuple):
    """An entity as it lies in the database; `expires` in microseconds."""

    version: int
    data: bytes
    keys: bytes
    expires: int | None = None

    def is_over(self, due: int) -> bool:
        """Whether its time is over at `due` (microseconds): it is then absent, whether or not it is removed yet."""
        return self.expires is not None and self.expires <= due


class Write(NamedTuple):
    """One entity to write (`new`) or to remove (`new` is None), on condition that it is still as `old`."""

    kind: str
    id: str
    old: Stored | None
    new: Stored | None
    added: Sequence[IndexKey]
    removed: Sequence[IndexKey]


class IdempotencyRow(NamedTuple):
    """A guard as stored; `answer` is None for an inbox mark, `expires` in microseconds."""

    key: str
    fingerprint: str
    answer: bytes | None
    expires: int


class Request(NamedTuple):
    """One transaction as asked for; `origin` is the context of the work that asks."""

    refs: Sequence[Ref]
    change: Callable[[Sequence[Any]], Changes[Any]]
    idempotency: IdempotencyRecord | None
    origin: Context


class Plan(NamedTuple):
    """All that one transaction writes, and what its caller gets."""

    result: Any
    writes: Sequence[Write]
    outbox: Sequence[OutboxRow]
    record: IdempotencyRow | None


def fitting(sizes: Iterable[int], limit: int) -> int:
    """How many of the entities of these sizes (in bytes) one page has: see `Store.page`."""
    count = total = 0
    for size in sizes:
        total += size
        if count == limit or (count and total > PAGE_BYTES):
            break
        count += 1
    return count


def replay(idempotency: IdempotencyRecord, found: IdempotencyRow | None, now: datetime) -> tuple[bool, Any]:
    """Whether the guard says that the work is done, and with what answer.

    Raises AlreadyDone for an inbox mark, INVALID_ARGUMENT for a key that was used for another request.
    """
    if found is None or found.expires <= micros(now):
        return False, None
    if idempotency.answer is None:
        raise AlreadyDone(idempotency.key)
    if found.answer is None or found.fingerprint != idempotency.fingerprint:
        raise invalid("This idempotency key was used for another request.", reason="IDEMPOTENCY_KEY_REUSED")
    return True, decoder(idempotency.answer).decode(found.answer)


def outbox_rows(events: Iterable[Payload], now: datetime, origin: Context) -> list[OutboxRow]:
    """The rows of the events that a change recorded, in the context of the work that asked for it."""
    return [
        OutboxRow(
            _event_id(),
            event.TYPE,
            event.SOURCE,
            event.subject,
            now,
            encode(event),
            origin.correlation_id,
            origin.traceparent,
            origin.tracestate,
        )
        for event in events
    ]


def plan(
    codecs: CodecRegistry, request: Request, found: Mapping[Ref, Stored], now: datetime, epoch: int = 0
) -> Plan:
    """Run `change` on fresh copies of what was found and work out what to write; versions are above `epoch`.

    Raises what `change` raises, and ValueError when it wants to write what it was not given.
    """
    copies: dict[Ref, Any] = {
        ref: codecs.of(ref.type).decode(found[ref].data) if ref in found else None for ref in request.refs
    }
    changes = request.change([copies[ref] for ref in request.refs])
    writes: dict[Ref, Write] = {}
    for entity in changes.put:
        ref = _own_ref(entity, copies, writes)
        writes[ref] = _put(codecs.of(ref.type), entity, found.get(ref), epoch)
    for entity in changes.delete:
        ref = _own_ref(entity, copies, writes)
        if ref in found:
            writes[ref] = _removal(codecs.of(ref.type).name, ref.id, found[ref])
    return Plan(
        changes.result,
        list(writes.values()),
        outbox_rows(changes.events, now, request.origin),
        _record(request.idempotency, changes, now),
    )


def _own_ref(entity: Any, given: Mapping[Ref, Any], writes: Mapping[Ref, Write]) -> Ref:
    ref = Ref(type(entity), entity.id)
    if ref not in given:
        raise ValueError(f"{ref.type.__name__} {ref.id} is not among the refs of this transaction")
    if ref in writes:
        raise ValueError(f"{ref.type.__name__} {ref.id} is written twice in this transaction")
    return ref


def _put(codec: Codec[Any], entity: Any, old: Stored | None, epoch: int) -> Write:
    entity.version = max(old.version if old else 0, epoch) + 1
    keys = encode_keys(codec.kind.indexes(entity))
    expires = codec.kind.expires_at(entity)
    new = Stored(entity.version, encode(entity), keys, micros(expires) if expires else None)
    old_keys = old.keys if old else b"[]"
    if old_keys == keys:
        return Write(codec.name, entity.id, old, new, (), ())
    before, after = set(decode_keys(old_keys)), set(decode_keys(keys))
    return Write(codec.name, entity.id, old, new, sorted(after - before), sorted(before - after))


def _removal(kind: str, entity_id: str, old: Stored) -> Write:
    return Write(kind, entity_id, old, None, (), decode_keys(old.keys))


def _record(
    idempotency: IdempotencyRecord | None, changes: Changes[Any], now: datetime
) -> IdempotencyRow | None:
    if idempotency is None:
        return None
    answer = encode(changes.result) if idempotency.answer is not None else None
    return IdempotencyRow(idempotency.key, idempotency.fingerprint, answer, micros(now + idempotency.ttl))
