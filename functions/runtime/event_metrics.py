"""Metrics of committed events. Each event is counted once, after its commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from events.catalog import CATALOG, Payload
from events.outbox import OutboxRow
from observability import metrics

EventMetric = Callable[[Any, datetime], None]
"""Updates a metric from the payload of a committed event and its time."""


class EventMetrics:
    """A commit listener that counts events by type, and calls the `event_metrics` of a domain."""

    def __init__(self, service: str, event_metrics: Mapping[type[Payload], EventMetric]) -> None:
        self._service = service
        self._metrics = {
            payload.TYPE: (msgspec.json.Decoder(payload), update) for payload, update in event_metrics.items()
        }
        # The counters of this service's events exist from the start, because a rate needs a sample before the increase.
        self._counters = {
            payload.TYPE: metrics.COMMITTED.labels(service, payload.TYPE)
            for payload in CATALOG.values()
            if payload.SOURCE.removeprefix("/") == service
        }

    def __call__(self, rows: Sequence[OutboxRow]) -> None:
        """Count the rows of one commit."""
        for row in rows:
            counter = self._counters.get(row.type)
            if counter is None:
                counter = self._counters[row.type] = metrics.COMMITTED.labels(self._service, row.type)
            counter.inc()
            metric = self._metrics.get(row.type)
            if metric is not None:
                decoder, update = metric
                update(decoder.decode(row.data), row.time)
