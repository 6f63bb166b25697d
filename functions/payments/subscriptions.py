"""The events to which payments subscribes, and the method that handles each."""

from __future__ import annotations

from events.catalog import OrderCancelled, Payload, StockReserved, SweepDue, UserDeleted
from functions.payments.service import PaymentsService
from functions.runtime.app import Handler


def subscriptions(service: PaymentsService) -> dict[type[Payload], Handler]:
    """Return the handlers by payload type."""
    return {
        StockReserved: service.on_stock_reserved,
        OrderCancelled: service.on_order_cancelled,
        UserDeleted: service.on_user_deleted,
        SweepDue: lambda _event, _inbox: service.sweep(),
    }
