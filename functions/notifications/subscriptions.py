"""The event door: what each event type tells whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from functions.notifications import messages, sending, service
from functions.notifications.desk import Desk
from functions.notifications.domain import Message
from functions.runtime.app import Handler
from functions.runtime.inbox import InboxRecord


def subscriptions(desk: Desk) -> dict[type[Payload], Handler]:
    """Handlers by event type."""

    def tell(compose: Callable[[Any], Message]) -> Handler:
        async def handler(event: Any, inbox: InboxRecord) -> None:
            message = compose(event)
            await sending.tell(event.user_id, message, inbox.source, inbox.event_id, desk)

        return handler

    async def stock_low(event: StockLow, inbox: InboxRecord) -> None:
        await sending.tell_administrators(messages.stock_low(event), inbox.source, inbox.event_id, desk)

    async def user_deleted(event: UserDeleted, inbox: InboxRecord) -> None:
        await service.erase(event.user_id, desk)

    async def sweep_due(_: SweepDue, __: InboxRecord) -> None:
        await sending.sweep(desk)

    return {
        UserRegistered: tell(messages.welcome),
        UserChallenged: tell(messages.challenged),
        UserEmailChangeRequested: tell(messages.email_change_requested),
        UserEmailChanged: tell(messages.email_changed),
        UserPasswordChanged: tell(messages.password_changed),
        OrderConfirmed: tell(messages.order_confirmed),
        OrderCancelled: tell(messages.order_cancelled),
        OrderShipped: tell(messages.order_shipped),
        OrderDelivered: tell(messages.order_delivered),
        PaymentRefunded: tell(messages.payment_refunded),
        StockLow: stock_low,
        UserDeleted: user_deleted,
        SweepDue: sweep_due,
    }
