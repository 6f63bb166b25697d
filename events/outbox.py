"""Outbox rows: events that committed with the state that they tell of, waiting for the broker."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class OutboxRow(NamedTuple):
    """One CloudEvent to be published, as written in the transaction.

    `id` is a UUIDv7 and the event's id; `data` is the payload's JSON; `traceparent`, `tracestate` and `correlation_id` are
    those of the work that caused it, kept so that a publication much later still belongs to the same trace.
    """

    id: str
    type: str
    source: str
    subject: str
    time: datetime
    data: bytes
    correlation_id: str
    traceparent: str
    tracestate: str
