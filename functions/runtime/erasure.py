"""Erasure tombstones: records of deleted accounts, so that a late event does not store personal data again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from functions.runtime.store.port import Changes, EntityMapping, Ref, Store

KEPT = timedelta(days=30)


@dataclass
class Erasure:
    """The tombstone of a deleted account. `id` is the user's id."""

    id: str
    at: datetime
    version: int = 0


ERASURE_MAPPING = EntityMapping(Erasure, "erasure", expires_at=lambda erasure: erasure.at + KEPT)


async def record_erasure(store: Store, user_id: str, now: datetime) -> None:
    """Record that the account was deleted. A repeated call keeps the time of the first."""
    await store.transact(
        [Ref(Erasure, user_id)], lambda found: Changes(None, [] if found[0] else [Erasure(user_id, now)])
    )
