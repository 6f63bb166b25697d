"""Inbox records. An event takes effect once, because its record commits together with the effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from functions.runtime.store.port import Changes, IdempotencyRecord, Store

KEPT = timedelta(days=7)
"""How long inbox records are kept, which is far longer than any broker retries. If a dead letter is replayed later, the
handler recognises its effect by the entity's state."""


@dataclass(frozen=True)
class InboxRecord(IdempotencyRecord):
    """The record of one received CloudEvent, identified by `source` and `event_id`. It commits with the event's effect.

    `time` is the event's own time, as the source sent it.
    """

    source: str = field(kw_only=True)
    event_id: str = field(kw_only=True)
    time: datetime = field(kw_only=True)


def inbox_record(source: str, event_id: str, time: datetime) -> InboxRecord:
    """Make the record of one CloudEvent, which source and id identify (CloudEvents 1.0, section 3.1.1)."""
    return InboxRecord(f"inbox:{source}:{event_id}", KEPT, source=source, event_id=event_id, time=time)


async def commit_inbox_record(store: Store, inbox: InboxRecord) -> None:
    """Commit a record alone, after work that was committed in parts. Raises AlreadyDone if the record exists."""
    await store.transact([], lambda _: Changes(None), idempotency=inbox)
