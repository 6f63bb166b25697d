"""Inbox records: an event takes effect once, because its record commits with the effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from functions.runtime.store.port import Changes, IdempotencyRecord, Store

KEPT = timedelta(days=7)
"""Far longer than any broker retries. A dead letter that is replayed later still finds its effect in the entity's
state."""


@dataclass(frozen=True)
class InboxRecord(IdempotencyRecord):
    """The record of one received CloudEvent, named by `source` and `event_id`. It commits with the event's effect.

    `time` is when the source says that it happened.
    """

    source: str = field(kw_only=True)
    event_id: str = field(kw_only=True)
    time: datetime = field(kw_only=True)


def inbox_record(source: str, event_id: str, time: datetime) -> InboxRecord:
    """Make the record of one CloudEvent: source and id identify it (CloudEvents 1.0, section 3.1.1)."""
    return InboxRecord(f"inbox:{source}:{event_id}", KEPT, source=source, event_id=event_id, time=time)


async def commit_inbox_record(store: Store, inbox: InboxRecord) -> None:
    """Commit a record alone, after work that was committed in parts. Raises AlreadyDone if it is there."""
    await store.transact([], lambda _: Changes(None), idempotency=inbox)
