"""The messages to send, one function for each event type."""

from __future__ import annotations

from events.catalog import (
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderShipped,
    PaymentRefunded,
    StockLow,
    UserChallenged,
    UserEmailChanged,
    UserEmailChangeRequested,
    UserPasswordChanged,
    UserRegistered,
)
from functions.notifications.domain import Message
from functions.notifications.rendering import amount

_REASONS = {
    "ACCOUNT_DELETED": "the account was deleted",
    "AMOUNT_NOT_CHARGEABLE": "we cannot charge this amount; nothing is wrong with your card",
    "CUSTOMER_REQUEST": "as you asked",
    "DISPUTE_LOST": "your bank took the payment back",
    "INSUFFICIENT_FUNDS": "the payment was declined for lack of funds",
    "OUT_OF_STOCK": "not enough of it is in stock",
    "PAYMENT_DECLINED": "the payment was declined",
    "REFUNDED": "all that you paid went back to you",
    "PRODUCT_UNAVAILABLE": "something in it is not for sale any more",
    "RESERVATION_EXPIRED": "we could not hold the goods for you any longer",
    "TIMED_OUT": "it could not be completed in time",
}


def welcome(event: UserRegistered) -> Message:
    """Return the message to the user."""
    return Message("welcome", {})


def challenged(event: UserChallenged) -> Message:
    """Return the message to the account's address, which may belong to another person."""
    is_registered = event.occasion == "REGISTRATION"
    return Message("already_registered" if is_registered else event.purpose.lower(), {})


def email_change_requested(event: UserEmailChangeRequested) -> Message:
    """Return the message to the new address that the user requested."""
    return Message("email_change", {})


def email_changed(event: UserEmailChanged) -> Message:
    """Return the message to the account's former address."""
    return Message("email_changed", {"change_id": event.change_id})


def password_changed(event: UserPasswordChanged) -> Message:
    """Return the message to the user."""
    return Message("password_changed", {})


def order_confirmed(event: OrderConfirmed) -> Message:
    """Return the message to the buyer."""
    return _about(event.order_id, "order_confirmed", total=amount(event.total))


def order_cancelled(event: OrderCancelled) -> Message:
    """Return the message to the buyer, with the reason in words if `_REASONS` has it.

    Any other reason is left out. It may be the customer's own text, and the address may belong to another person.
    """
    returned = "yes" if event.money_returned else ""
    return _about(event.order_id, "order_cancelled", why=_REASONS.get(event.reason, ""), money_returned=returned)


def order_shipped(event: OrderShipped) -> Message:
    """Return the message to the buyer."""
    return _about(event.order_id, "order_shipped")


def order_delivered(event: OrderDelivered) -> Message:
    """Return the message to the buyer."""
    return _about(event.order_id, "order_delivered")


def payment_refunded(event: PaymentRefunded) -> Message:
    """Return the message to the buyer."""
    return _about(event.order_id, "payment_refunded", amount=amount(event.amount), refunded=amount(event.refunded))


def stock_low(event: StockLow) -> Message:
    """Return the message to every administrator."""
    params = {
        "sku": event.sku,
        "product_id": event.product_id,
        "available": str(event.available),
        "threshold": str(event.threshold),
    }
    return Message("stock_low", params)


def _about(order_id: str, template: str, **params: str) -> Message:
    return Message(template, {"order_id": order_id, **params}, order_id)
