"""A store whose transactions are spans; put around the real one only when tracing is on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar

from events.catalog import Payload
from events.outbox import OutboxRow
from functions.runtime.errors import ServiceError
from functions.runtime.store.port import AlreadyDone, Changes, Entity, Once, Page, Ref, Store
from observability import tracing

E = TypeVar("E", bound=Entity)
R = TypeVar("R")

_SYSTEMS = {"sqlite": "sqlite", "dynamodb": "aws.dynamodb"}


class TracedStore:
    """The port over another store. Reads have no spans: on SQLite one would cost more than what it tells of."""

    def __init__(self, store: Store, scheme: str, name: str) -> None:
        self._store = store
        self._attributes = {"db.system.name": _SYSTEMS.get(scheme, scheme), "db.namespace": name}

    async def get(self, cls: type[E], entity_id: str) -> E | None:
        """See the port."""
        return await self._store.get(cls, entity_id)

    async def get_many(self, cls: type[E], ids: Sequence[str]) -> dict[str, E]:
        """See the port."""
        return await self._store.get_many(cls, ids)

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
    ) -> Page[E]:
        """See the port."""
        return await self._store.page(
            cls, index, partition, limit=limit, cursor=cursor, descending=descending, until=until
        )

    async def update(
        self,
        cls: type[E],
        entity_id: str,
        change: Callable[[E | None], tuple[E, Sequence[Payload]]],
        *,
        once: Once | None = None,
    ) -> E:
        """See the port."""
        with self._span("update", {cls.__name__}):
            return await self._store.update(cls, entity_id, change, once=once)

    async def transact(
        self, refs: Sequence[Ref], change: Callable[[Sequence[Any]], Changes[R]], *, once: Once | None = None
    ) -> R:
        """See the port."""
        with self._span("transact", {ref.type.__name__ for ref in refs}):
            return await self._store.transact(refs, change, once=once)

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]:
        """See the port."""
        return await self._store.outbox(before, limit)

    async def outbox_published(self, ids: Sequence[str]) -> None:
        """See the port."""
        await self._store.outbox_published(ids)

    async def outbox_state(self) -> tuple[int, datetime | None]:
        """See the port."""
        return await self._store.outbox_state()

    def on_commit(self, listener: Callable[[Sequence[OutboxRow]], None]) -> None:
        """See the port."""
        self._store.on_commit(listener)

    async def expire(self, now: datetime, limit: int = 1000) -> int:
        """See the port."""
        return await self._store.expire(now, limit)

    def erased(self) -> None:
        """See the port."""
        self._store.erased()

    async def ping(self) -> None:
        """See the port."""
        await self._store.ping()

    async def close(self) -> None:
        """See the port."""
        await self._store.close()

    def _span(self, operation: str, classes: set[str]) -> AbstractContextManager[Any]:
        collection = " ".join(sorted(classes))
        attributes = {
            **self._attributes,
            "db.operation.name": operation,
            "db.collection.name": collection,
        }
        # A rule of the domain that says no is no failure of the database, nor is an event that came twice.
        return tracing.span(f"{operation} {collection}".rstrip(), "CLIENT", attributes, harmless=_HARMLESS)


_HARMLESS = (AlreadyDone, ServiceError)
