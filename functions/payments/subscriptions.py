"""The event door: which use case each event type starts."""

from __future__ import annotations

from events.catalog import OrderCancelled, Payload, StockReserved, SweepDue, UserDeleted
from functions.payments import service
from functions.payments.desk import Desk
from functions.runtime.app import Handler, ReceivedEvent


def subscriptions(desk: Desk) -> dict[type[Payload], Handler]:
    """Handlers by event type."""

    async def stock_reserved(event: ReceivedEvent[StockReserved]) -> None:
        await service.charge(event.data.order_id, event.inbox, desk)

    async def order_cancelled(event: ReceivedEvent[OrderCancelled]) -> None:
        await service.cancel(event.data.order_id, event.data.user_id, event.inbox, desk)

    async def user_deleted(event: ReceivedEvent[UserDeleted]) -> None:
        await service.erase(event.data.user_id, desk)

    async def sweep_due(_: ReceivedEvent[SweepDue]) -> None:
        await service.sweep(desk)

    return {
        StockReserved: stock_reserved,
        OrderCancelled: order_cancelled,
        UserDeleted: user_deleted,
        SweepDue: sweep_due,
    }
