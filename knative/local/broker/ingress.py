"""Accept events and replies for a broker: route them and make them durable before they are acknowledged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from events.cloudevent import BadEvent, CloudEvent
from knative.local.broker.delivery import ARRIVAL, TTL, incoming_ttl
from knative.local.broker.dispatcher import Dispatcher
from knative.local.broker.metrics import Metrics
from knative.local.broker.storage import Storage, StoredEvent

log = logging.getLogger("shop.broker")


class Ingress:
    """The ingress of the broker that `key` (namespace/name) identifies; `clock` returns Unix time."""

    def __init__(
        self,
        key: str,
        storage: Storage,
        dispatchers: Sequence[Dispatcher],
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.key = key
        self._storage = storage
        self._of_any_type = [d for d in dispatchers if d.event_type is None]
        self._by_type: dict[str, list[Dispatcher]] = {}
        for dispatcher in dispatchers:
            if dispatcher.event_type is not None:
                self._by_type.setdefault(dispatcher.event_type, []).append(dispatcher)
        self._received = metrics.received.labels(key)
        self._expired = metrics.expired.labels(key)
        self._clock = clock

    async def accept(self, events: Sequence[CloudEvent]) -> None:
        """Accept either all events or none. On return, the accepted events are durable.

        Raises BadEvent (TTL_EXHAUSTED) and StorageError.
        """
        ttls = [incoming_ttl(event.attributes) for event in events]
        if min(ttls, default=1) <= 0:
            index = ttls.index(0)
            self._drop(events[index])
            raise BadEvent("TTL_EXHAUSTED", f"event {index}: its {TTL} has run out")
        await self._commit([self._route(event, ttl) for event, ttl in zip(events, ttls, strict=True)])
        self._received.inc(len(events))

    async def reply(self, event: CloudEvent, ttl: int, done: tuple[int, int]) -> None:
        """Accept the reply `event` to a delivered event, and end the delivery `done` (dispatcher id, seq).

        Both happen in the same commit. `ttl` is that of the delivered event; if it is used up, the reply is dropped.
        """
        event.attributes.pop(TTL, None)
        if ttl <= 1:
            self._drop(event)
            self._storage.done(*done)
            return
        await self._commit([self._route(event, ttl - 1)], done)
        self._received.inc()

    async def _commit(
        self, routed: Sequence[tuple[StoredEvent, list[Dispatcher]]], done: tuple[int, int] | None = None
    ) -> None:
        def enqueue() -> None:
            for event, dispatchers in routed:
                for dispatcher in dispatchers:
                    dispatcher.enqueue(event)

        wanted = [(event, tuple(d.id for d in dispatchers)) for event, dispatchers in routed if dispatchers]
        if wanted:
            await self._storage.accept(wanted, enqueue, done)
        elif done is not None:
            self._storage.done(*done)

    def _route(self, event: CloudEvent, ttl: int) -> tuple[StoredEvent, list[Dispatcher]]:
        attributes = event.attributes
        attributes[ARRIVAL] = datetime.fromtimestamp(self._clock(), UTC).isoformat()[:-6] + "Z"
        candidates = (*self._by_type.get(event.type, ()), *self._of_any_type)
        dispatchers = [d for d in candidates if d.trigger.passes is None or d.trigger.passes(attributes)]
        return self._storage.stored(ttl, attributes, event.data), dispatchers

    def _drop(self, event: CloudEvent) -> None:
        self._expired.inc()
        fields = {"broker": self.key, "event_id": event.id, "event_type": event.type}
        log.warning("event dropped: its ttl has run out", extra=fields)
