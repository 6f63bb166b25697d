"""Helpers for tests that use a store."""

from __future__ import annotations

from datetime import UTC, datetime

from events.catalog import CATALOG, Payload
from functions.runtime.store.codec import decoder
from functions.runtime.store.port import Store


async def recorded(store: Store) -> list[Payload]:
    """Return the events in the store's outbox, decoded, oldest first."""
    rows = await store.outbox(datetime.max.replace(tzinfo=UTC), 1_000_000)
    return [decoder(CATALOG[row.type]).decode(row.data) for row in rows]
