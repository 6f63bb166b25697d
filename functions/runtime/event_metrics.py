"""Metrics of what happened: events are counted when they have committed, once, wherever they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from events.catalog import CATALOG, Payload
from events.outbox import OutboxRow
from observability import metrics

EventMetric = Callable[[Any, datetime], None]
"""Takes the payload of a committed event and its time."""


class EventMetrics:
    """A commit listener: counts events by type, and hands the payloads of `event_metrics` to a domain's own metrics."""

    def __init__(self, service: str, event_metrics: Mapping[type[Payload], EventMetric]) -> None:
        self._service = service
        self._measures = {
            payload.TYPE: (msgspec.json.Decoder(payload), measure)
            for payload, measure in event_metrics.items()
        }
        # What this service sends is there from the start, at 0: a rate needs two samples.
        self._counters = {
            payload.TYPE: metrics.COMMITTED.labels(service, payload.TYPE)
            for payload in CATALOG.values()
            if payload.SOURCE.removeprefix("/") == service
        }

    def __call__(self, rows: Sequence[OutboxRow]) -> None:
        """Called with the rows of each commit."""
        for row in rows:
            counter = self._counters.get(row.type)
            if counter is None:
                counter = self._counters[row.type] = metrics.COMMITTED.labels(self._service, row.type)
            counter.inc()
            measured = self._measures.get(row.type)
            if measured is not None:
                decoder, measure = measured
                measure(decoder.decode(row.data), row.time)
