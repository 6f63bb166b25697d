"""The event door: which use case each event type starts."""

from __future__ import annotations

from events.catalog import OrderCancelled, Payload, StockReserved, SweepDue, UserDeleted
from functions.payments import service
from functions.payments.desk import Desk
from functions.runtime.app import Handler
from functions.runtime.inbox import InboxRecord


def subscriptions(desk: Desk) -> dict[type[Payload], Handler]:
    """Handlers by event type."""

    async def stock_reserved(event: StockReserved, inbox: InboxRecord) -> None:
        await service.charge(event.order_id, inbox, desk)

    async def order_cancelled(event: OrderCancelled, inbox: InboxRecord) -> None:
        await service.cancel(event.order_id, event.user_id, inbox, desk)

    async def user_deleted(event: UserDeleted, inbox: InboxRecord) -> None:
        await service.erase(event.user_id, desk)

    async def sweep_due(_: SweepDue, __: InboxRecord) -> None:
        await service.sweep(desk)

    return {
        StockReserved: stock_reserved,
        OrderCancelled: order_cancelled,
        UserDeleted: user_deleted,
        SweepDue: sweep_due,
    }
