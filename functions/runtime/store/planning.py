"""The step of every adapter between reading and writing: call `change` and determine the rows to write.

This module never calls a database. It raises the caller's errors, before the first write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from events.catalog import Payload
from events.outbox import OutboxRow
from functions.runtime.errors import invalid
from functions.runtime.ids import uuid7
from functions.runtime.store.codec import Codec, CodecRegistry, decode_keys, decoder, encode, encode_keys, micros
from functions.runtime.store.port import PAGE_BYTES, AlreadyDone, Changes, IdempotencyRecord, IndexKey, Ref
from observability.context import Context


class Stored(NamedTuple):
    """An entity as stored. `expires` is in microseconds since 1970."""

    version: int
    data: bytes
    keys: bytes
    expires: int | None = None

    def is_over(self, due: int) -> bool:
        """Return whether the entity has expired at `due` (microseconds since 1970), and so counts as absent."""
        return self.expires is not None and self.expires <= due


class Write(NamedTuple):
    """One entity to write, or to remove if `new` is None, on condition that its stored state is still `old`.

    `kind` is the stored name of its class (`EntityMapping.name`).
    """

    kind: str
    id: str
    old: Stored | None
    new: Stored | None
    added: Sequence[IndexKey]
    removed: Sequence[IndexKey]


class IdempotencyRow(NamedTuple):
    """An idempotency record as stored. `answer` is None in an inbox record. `expires` is in microseconds since 1970."""

    key: str
    fingerprint: str
    answer: bytes | None
    expires: int


class Request(NamedTuple):
    """One transaction to carry out. `origin` is the caller's context: correlation id and trace."""

    refs: Sequence[Ref]
    change: Callable[[Sequence[Any]], Changes[Any]]
    idempotency: IdempotencyRecord | None
    origin: Context
    likely_new: bool = False


class Plan(NamedTuple):
    """The rows that one transaction writes, and the result that it returns to the caller."""

    result: Any
    writes: Sequence[Write]
    outbox: Sequence[OutboxRow]
    record: IdempotencyRow | None


def fitting(sizes: Iterable[int], limit: int) -> int:
    """Return how many entities fit into one page (see `Store.page`). `sizes` are their sizes in bytes, in order."""
    count = total = 0
    for size in sizes:
        total += size
        if count == limit or (count and total > PAGE_BYTES):
            break
        count += 1
    return count


def plan_or_replay(
    codecs: CodecRegistry,
    request: Request,
    find_record: Callable[[str], IdempotencyRow | None],
    find: Callable[[Ref], Stored | None],
    now: datetime,
    epoch: int,
) -> Plan:
    """Plan a transaction, or replay the result of an earlier one with the same idempotency record.

    `find_record` reads an idempotency record by its key, and `find` an entity. `epoch` is as in `plan`. A replay writes
    nothing. Raises AlreadyDone for an event whose effect was committed before, INVALID_ARGUMENT for a key that was used
    for another request, and the errors of `plan`.
    """
    idempotency = request.idempotency
    if idempotency is not None:
        record = find_record(idempotency.key)
        if record is not None and record.expires > micros(now):
            return Plan(_replay(idempotency, record), (), (), None)
    found = {ref: stored for ref in request.refs if (stored := find(ref)) is not None}
    return plan(codecs, request, found, now, epoch)


def _replay(idempotency: IdempotencyRecord, found: IdempotencyRow) -> Any:
    if idempotency.answer is None:
        raise AlreadyDone(idempotency.key)
    if found.answer is None or found.fingerprint != idempotency.fingerprint:
        raise invalid("This idempotency key was used for another request.", reason="IDEMPOTENCY_KEY_REUSED")
    return decoder(idempotency.answer).decode(found.answer)


def _outbox_rows(events: Iterable[Payload], now: datetime, origin: Context) -> list[OutboxRow]:
    return [
        OutboxRow(
            uuid7(),
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


def plan(codecs: CodecRegistry, request: Request, found: Mapping[Ref, Stored], now: datetime, epoch: int = 0) -> Plan:
    """Call the request's `change` with copies of the entities found (None if absent), and return the rows to write.

    Every new version is greater than the old one and than `epoch` (see epochs.py; 0: never restored). Raises the errors
    of `change`, and ValueError if it writes an entity twice or an entity that is not in `request.refs`.
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
            old = found[ref]
            writes[ref] = Write(codecs.of(ref.type).name, ref.id, old, None, (), decode_keys(old.keys))
    return Plan(
        changes.result,
        list(writes.values()),
        _outbox_rows(changes.events, now, request.origin),
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
    keys = encode_keys(codec.mapping.indexes(entity))
    expires = codec.mapping.expires_at(entity)
    new = Stored(entity.version, encode(entity), keys, micros(expires) if expires else None)
    old_keys = old.keys if old else b"[]"
    if old_keys == keys:
        return Write(codec.name, entity.id, old, new, (), ())
    before, after = set(decode_keys(old_keys)), set(decode_keys(keys))
    return Write(codec.name, entity.id, old, new, sorted(after - before), sorted(before - after))


def _record(idempotency: IdempotencyRecord | None, changes: Changes[Any], now: datetime) -> IdempotencyRow | None:
    if idempotency is None:
        return None
    answer = encode(changes.result) if idempotency.answer is not None else None
    return IdempotencyRow(idempotency.key, idempotency.fingerprint, answer, micros(now + idempotency.ttl))
