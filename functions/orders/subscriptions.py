"""The events' door: which event calls which use case."""

from __future__ import annotations

from datetime import timedelta

from events.catalog import (
    Payload,
    PaymentCaptured,
    PaymentDeclined,
    PaymentDisputeClosed,
    PaymentDisputed,
    PaymentRefunded,
    PaymentRefundFailed,
    StockRejected,
    StockReserved,
    SweepDue,
    UserDeleted,
)
from functions.orders import service
from functions.orders.store import Orders
from functions.runtime.app import Handler
from functions.runtime.clock import Clock
from functions.runtime.inbox import InboxRecord


def subscriptions(orders: Orders, clock: Clock, patience: timedelta) -> dict[type[Payload], Handler]:
    """Handlers by payload; `patience` is how long an order may wait for stock and payment."""

    async def stock_reserved(event: StockReserved, inbox: InboxRecord) -> None:
        await service.stock_reserved(orders, clock, event.order_id, inbox)

    async def stock_rejected(event: StockRejected, inbox: InboxRecord) -> None:
        await service.stock_rejected(orders, clock, event, inbox)

    async def user_deleted(event: UserDeleted, inbox: InboxRecord) -> None:
        await service.erase_person(orders, clock, event.user_id, inbox)

    async def sweep_due(_: SweepDue, __: InboxRecord) -> None:
        await service.cancel_overdue(orders, clock, patience)

    return {
        StockReserved: stock_reserved,
        StockRejected: stock_rejected,
        **_of_payments(orders, clock),
        UserDeleted: user_deleted,
        SweepDue: sweep_due,
    }


def _of_payments(orders: Orders, clock: Clock) -> dict[type[Payload], Handler]:
    """Handlers of what becomes of an order's money."""

    async def payment_captured(event: PaymentCaptured, inbox: InboxRecord) -> None:
        await service.payment_captured(orders, clock, event, inbox)

    async def payment_declined(event: PaymentDeclined, inbox: InboxRecord) -> None:
        await service.payment_declined(orders, clock, event, inbox)

    async def payment_refunded(event: PaymentRefunded, inbox: InboxRecord) -> None:
        await service.payment_refunded(orders, clock, event, inbox)

    async def refund_failed(event: PaymentRefundFailed, inbox: InboxRecord) -> None:
        await service.refund_failed(orders, clock, event, inbox)

    async def payment_disputed(event: PaymentDisputed, inbox: InboxRecord) -> None:
        await service.payment_disputed(orders, clock, event, inbox)

    async def dispute_closed(event: PaymentDisputeClosed, inbox: InboxRecord) -> None:
        await service.dispute_closed(orders, clock, event, inbox)

    return {
        PaymentCaptured: payment_captured,
        PaymentDeclined: payment_declined,
        PaymentRefunded: payment_refunded,
        PaymentRefundFailed: refund_failed,
        PaymentDisputed: payment_disputed,
        PaymentDisputeClosed: dispute_closed,
    }
