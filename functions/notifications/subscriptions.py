"""The events to which notifications subscribes, and the method that handles each."""

from __future__ import annotations

from events.catalog import (
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderShipped,
    Payload,
    PaymentRefunded,
    StockLow,
    SweepDue,
    UserChallenged,
    UserDeleted,
    UserEmailChanged,
    UserEmailChangeRequested,
    UserPasswordChanged,
    UserRegistered,
)
from functions.notifications.service import NotificationsService
from functions.runtime.app import Handler


def subscriptions(service: NotificationsService) -> dict[type[Payload], Handler]:
    """Return the handlers by payload type."""
    return {
        UserRegistered: service.on_user_registered,
        UserChallenged: service.on_user_challenged,
        UserEmailChangeRequested: service.on_email_change_requested,
        UserEmailChanged: service.on_email_changed,
        UserPasswordChanged: service.on_password_changed,
        OrderConfirmed: service.on_order_confirmed,
        OrderCancelled: service.on_order_cancelled,
        OrderShipped: service.on_order_shipped,
        OrderDelivered: service.on_order_delivered,
        PaymentRefunded: service.on_payment_refunded,
        StockLow: service.on_stock_low,
        UserDeleted: service.on_user_deleted,
        SweepDue: lambda _event, _inbox: service.sweep(),
    }
