"""What products reacts to."""

from __future__ import annotations

from datetime import timedelta

from events.catalog import OrderCancelled, OrderConfirmed, OrderPlaced, Payload, SweepDue
from functions.products import stock_service
from functions.products.reindex import reindex
from functions.runtime.app import Handler
from functions.runtime.clock import Clock
from functions.runtime.inbox import InboxRecord
from functions.runtime.store.port import Store


def subscriptions(store: Store, clock: Clock, hold: timedelta) -> dict[type[Payload], Handler]:
    """Handlers by payload; `hold` is how long a reservation lasts."""

    async def placed(event: OrderPlaced, inbox: InboxRecord) -> None:
        await stock_service.reserve(store, clock, hold, event, inbox)

    async def confirmed(event: OrderConfirmed, inbox: InboxRecord) -> None:
        await stock_service.commit(store, clock, event.order_id, inbox)

    async def cancelled(event: OrderCancelled, inbox: InboxRecord) -> None:
        await stock_service.release(store, clock, event.order_id, inbox)

    async def sweep(_: SweepDue, __: InboxRecord) -> None:
        await stock_service.expire(store, clock)
        await reindex(store)

    return {OrderPlaced: placed, OrderConfirmed: confirmed, OrderCancelled: cancelled, SweepDue: sweep}
