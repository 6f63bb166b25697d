"""What products reacts to."""

from __future__ import annotations

from datetime import timedelta

from events.catalog import OrderCancelled, OrderConfirmed, OrderPlaced, Payload, SweepDue
from functions.products import stock_service
from functions.products.reindex import reindex
from functions.runtime.app import Handler, ReceivedEvent
from functions.runtime.clock import Clock
from functions.runtime.store.port import Store


def subscriptions(store: Store, clock: Clock, hold: timedelta) -> dict[type[Payload], Handler]:
    """Handlers by payload; `hold` is how long a reservation lasts."""

    async def placed(event: ReceivedEvent[OrderPlaced]) -> None:
        await stock_service.reserve(store, clock, hold, event.data, event.inbox)

    async def confirmed(event: ReceivedEvent[OrderConfirmed]) -> None:
        await stock_service.commit(store, clock, event.data.order_id, event.inbox)

    async def cancelled(event: ReceivedEvent[OrderCancelled]) -> None:
        await stock_service.release(store, clock, event.data.order_id, event.inbox)

    async def sweep(_: ReceivedEvent[SweepDue]) -> None:
        await stock_service.expire(store, clock)
        await reindex(store)

    return {OrderPlaced: placed, OrderConfirmed: confirmed, OrderCancelled: cancelled, SweepDue: sweep}
