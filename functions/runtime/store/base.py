"""The base class of all store adapters. An adapter reads and writes; the base class implements the rest of the port."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar

from events.catalog import Payload
from events.outbox import OutboxRow
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError
from functions.runtime.paging import Listing, cursor_after, lower_bound
from functions.runtime.store.codec import CodecRegistry
from functions.runtime.store.planning import Request, fitting
from functions.runtime.store.port import (
    AlreadyDone,
    Changes,
    Entity,
    EntityMapping,
    IdempotencyRecord,
    Matches,
    Page,
    Ref,
    Term,
)
from functions.runtime.store.search import Query
from observability import tracing
from observability.context import current

_SYSTEMS = {"dynamodb": "aws.dynamodb"}
# These exceptions are not failures of the database: an error of the domain, and a repeated event.
_HARMLESS = (AlreadyDone, ServiceError)


class TransactionSpans:
    """Makes the spans of one store's transactions. `scheme` is the scheme of its URL, `name` its domain's name.

    Reads have no spans, because on SQLite a span would cost more than the read.
    """

    def __init__(self, scheme: str, name: str) -> None:
        self._system = _SYSTEMS.get(scheme, scheme)
        self._name = name
        self._templates: dict[tuple[object, ...], tracing.SpanTemplate] = {}

    def span(self, operation: str, refs: Sequence[Ref]) -> AbstractContextManager[Any]:
        """Return a context manager for a span around a transaction on these entities."""
        key = (operation, *dict.fromkeys(ref.type for ref in refs))
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = self._template(operation, {ref.type.__name__ for ref in refs})
        return template.span(harmless=_HARMLESS)

    def _template(self, operation: str, classes: set[str]) -> tracing.SpanTemplate:
        name = " ".join([operation, *sorted(classes)])
        attributes: dict[str, tracing.Attribute] = {
            "db.system.name": self._system,
            "db.namespace": self._name,
            "db.operation.name": operation,
        }
        if len(classes) == 1:
            attributes["db.collection.name"] = min(classes)
        else:  # the semantic conventions allow one collection at most
            attributes["db.query.summary"] = name
        return tracing.SpanTemplate(name, "CLIENT", attributes)


E = TypeVar("E", bound=Entity)
R = TypeVar("R")

log = logging.getLogger("shop.store")
_NO_SPAN: AbstractContextManager[None] = nullcontext()


class Range(NamedTuple):
    """A part of one listing: the entities after the position `after` (sort, id), with sort keys up to `until`.

    The listing is the partition `partition` of the index `name`, for the class whose stored name is `kind`.
    """

    kind: str
    name: str
    partition: str
    after: tuple[str, str] | None
    until: str | None
    descending: bool


Found = tuple[str, str, bytes]
"""Sort key, id and stored data of an entity in a listing."""


class StoreBase(ABC):
    """Base of the adapters of `Store` in port.py, which describes the methods."""

    def __init__(self, mappings: Sequence[EntityMapping[Any]], clock: Clock) -> None:
        self._codecs = CodecRegistry(mappings)
        self._clock = clock
        self._listeners: list[Callable[[Sequence[OutboxRow]], None]] = []
        self.spans: TransactionSpans | None = None
        """Makes a span for each transaction, if tracing is on."""

    @abstractmethod
    async def _read_many(self, kind: str, ids: Sequence[str]) -> Mapping[str, bytes]:
        """Return the stored data, by id, of the entities that exist among `ids` and have not expired.

        `kind` is the stored name of their class (`EntityMapping.name`).
        """

    @abstractmethod
    async def _read_range(self, wanted: Range, limit: int) -> Sequence[Found]:
        """Return the first `limit` entities of the range that have not expired."""

    @abstractmethod
    async def _read_matching(self, query: Query, limit: int) -> tuple[Sequence[Found], str | None]:
        """Return up to `limit` entities as `Store.search` does, and the sort key below which there may be more."""

    @abstractmethod
    async def _commit(self, request: Request) -> Any:
        """Carry out one transaction and return its result."""

    @abstractmethod
    async def epoch(self) -> int:
        """See `Store` in port.py."""

    async def get(self, cls: type[E], entity_id: str) -> E | None:
        return (await self.get_many(cls, (entity_id,))).get(entity_id)

    async def get_many(self, cls: type[E], ids: Sequence[str]) -> dict[str, E]:
        codec = self._codecs.of(cls)
        found = await self._read_many(codec.name, ids)
        return {entity_id: codec.decode(data) for entity_id, data in found.items()}

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
        codec = self._codecs.of(cls)
        listing = Listing(codec.name, index, partition, descending, await self.epoch())
        after = lower_bound(listing, cursor, since)
        found = await self._read_range(Range(codec.name, index, partition, after, until, descending), limit + 1)
        fit = fitting((len(data) for _, _, data in found), limit)
        items = [codec.decode(data) for _, _, data in found[:fit]]
        return Page(items, cursor_after(listing, *found[fit - 1][:2]) if len(found) > fit else None)

    async def search(
        self,
        cls: type[E],
        terms: Sequence[Term],
        *,
        limit: int,
        below: str | None = None,
        containing: Sequence[str] = (),
    ) -> Matches[E]:
        codec = self._codecs.of(cls)
        query = Query(codec.name, terms, below, [text.encode() for text in containing])
        found, rest = await self._read_matching(query, limit)
        fit = fitting((len(data) for _, _, data in found), limit)
        items = [codec.decode(data) for _, _, data in found[:fit]]
        return Matches(items, found[fit - 1][0] if fit < len(found) else rest)

    async def update(
        self,
        cls: type[E],
        entity_id: str,
        change: Callable[[E | None], tuple[E, Sequence[Payload]]],
        *,
        idempotency: IdempotencyRecord | None = None,
    ) -> E:

        def changes(found: Sequence[Any]) -> Changes[E]:
            entity, events = change(found[0])
            return Changes(entity, (entity,), (), events)

        refs = [Ref(cls, entity_id)]
        with self.spans.span("update", refs) if self.spans else _NO_SPAN:
            result: E = await self._commit(Request(refs, changes, idempotency, current()))
        return result

    async def transact(
        self,
        refs: Sequence[Ref],
        change: Callable[[Sequence[Any]], Changes[R]],
        *,
        idempotency: IdempotencyRecord | None = None,
        likely_new: bool = False,
    ) -> R:
        with self.spans.span("transact", refs) if self.spans else _NO_SPAN:
            result: R = await self._commit(Request(refs, change, idempotency, current(), likely_new))
        return result

    def on_commit(self, listener: Callable[[Sequence[OutboxRow]], None]) -> None:
        self._listeners.append(listener)

    def request_purge(self) -> None:  # noqa: B027 - most adapters have no files to purge
        """Do nothing, because the adapter has no files."""

    def _notify(self, rows: Sequence[OutboxRow]) -> None:
        """Call the commit listeners. If a listener raises, the error is logged and the others are still called."""
        for listener in self._listeners if rows else ():
            try:
                listener(rows)
            except Exception:
                log.exception("a commit listener failed")
