"""Inbox records: an event takes effect once, because its record commits with the effect."""

from __future__ import annotations

from datetime import timedelta

from functions.runtime.store.port import IdempotencyRecord

KEPT = timedelta(days=7)
"""Far longer than any broker retries; a dead letter replayed later still finds its effect in the entity's
state.
"""


class InboxRecord(IdempotencyRecord):
    """The record of one received CloudEvent. It commits with the event's effect."""


def inbox_record(source: str, event_id: str) -> InboxRecord:
    """Make the record of one CloudEvent: source and id identify it (CloudEvents 1.0, section 3.1.1)."""
    return InboxRecord(f"inbox:{source}:{event_id}", KEPT)
