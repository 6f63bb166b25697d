"""The events that the orders service subscribes to, and the method that handles each."""

from __future__ import annotations

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
from functions.orders.service import OrdersService
from functions.runtime.app import Handler


def subscriptions(service: OrdersService) -> dict[type[Payload], Handler]:
    """Return the handlers by payload type."""
    return {
        StockReserved: service.on_stock_reserved,
        StockRejected: service.on_stock_rejected,
        PaymentCaptured: service.on_payment_captured,
        PaymentDeclined: service.on_payment_declined,
        PaymentRefunded: service.on_payment_refunded,
        PaymentRefundFailed: service.on_payment_refund_failed,
        PaymentDisputed: service.on_payment_disputed,
        PaymentDisputeClosed: service.on_payment_dispute_closed,
        UserDeleted: service.on_user_deleted,
        SweepDue: lambda _event, _inbox: service.sweep(),
    }
