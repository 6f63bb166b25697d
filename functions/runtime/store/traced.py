"""A wrapper of a store that makes a span for each transaction. It is used only if tracing is on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from events.catalog import Payload
from functions.runtime.errors import ServiceError
from functions.runtime.store.port import AlreadyDone, Changes, Entity, IdempotencyRecord, Ref, Store
from observability import tracing

E = TypeVar("E", bound=Entity)
R = TypeVar("R")

_SYSTEMS = {"dynamodb": "aws.dynamodb"}
# These exceptions are not failures of the database: an error of the domain, and a repeated event.
_HARMLESS = (AlreadyDone, ServiceError)


class TracedStore:
    """An implementation of the port that wraps another store.

    Reads have no spans, because on SQLite a span would cost more than the read.
    """

    def __init__(self, store: Store, scheme: str, name: str) -> None:
        self._store = store
        self._system = _SYSTEMS.get(scheme, scheme)
        self._name = name
        self._operations: dict[tuple[str | type, ...], tracing.SpanTemplate] = {}
        # Methods without a span are taken from the wrapped store.
        self.get, self.get_many, self.page = store.get, store.get_many, store.page
        self.outbox, self.outbox_published = store.outbox, store.outbox_published
        self.outbox_state, self.on_commit = store.outbox_state, store.on_commit
        self.expire, self.request_purge = store.expire, store.request_purge
        self.epoch, self.ping, self.close = store.epoch, store.ping, store.close

    async def update(
        self,
        cls: type[E],
        entity_id: str,
        change: Callable[[E | None], tuple[E, Sequence[Payload]]],
        *,
        idempotency: IdempotencyRecord | None = None,
    ) -> E:
        """See the port."""
        with self._span("update", cls):
            return await self._store.update(cls, entity_id, change, idempotency=idempotency)

    async def transact(
        self,
        refs: Sequence[Ref],
        change: Callable[[Sequence[Any]], Changes[R]],
        *,
        idempotency: IdempotencyRecord | None = None,
    ) -> R:
        """See the port."""
        with self._span("transact", *{ref.type: None for ref in refs}):
            return await self._store.transact(refs, change, idempotency=idempotency)

    def _span(self, name: str, *classes: type) -> AbstractContextManager[Any]:
        operation = self._operations.get((name, *classes))
        if operation is None:
            operation = self._operations[name, *classes] = self._operation(name, classes)
        return operation.span(harmless=_HARMLESS)

    def _operation(self, name: str, classes: Sequence[type]) -> tracing.SpanTemplate:
        collection = " ".join(sorted({cls.__name__ for cls in classes}))
        attributes: dict[str, tracing.Attribute] = {
            "db.system.name": self._system,
            "db.namespace": self._name,
            "db.operation.name": name,
        }
        if len(classes) == 1:
            attributes["db.collection.name"] = collection
        else:  # the semantic conventions allow one collection at most
            attributes["db.query.summary"] = f"{name} {collection}".rstrip()
        return tracing.SpanTemplate(f"{name} {collection}".rstrip(), "CLIENT", attributes)
