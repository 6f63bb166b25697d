"""The platform's published language: every event type, its payload, who sends it, who reacts.

Payloads are msgspec structs: they validate on decoding, give the JSON Schemas in events/schemas, and cost a
tenth of pydantic's start-up in a service that scales from zero. A field may be added with a default, never
renamed or removed: a new shape is a new type (`...v2`). No payload names a person or carries a secret: ids
only.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

Id = Annotated[str, Meta(pattern=r"^[a-z]{3}_[0-9a-f]{32}$", description="Prefixed UUIDv7.")]
Reason = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]{0,63}$", description="A stable reason in UPPER_SNAKE.")]
Quantity = Annotated[int, Meta(ge=1, le=1_000_000)]
Count = Annotated[int, Meta(ge=0)]


ERASED_USER_ID = "usr_" + "0" * 32
"""Stands for a person whose account was deleted: payloads need a well-formed id, and this is nobody's."""


class Money(msgspec.Struct, frozen=True):
    """An amount in minor units (cents) of an ISO 4217 currency."""

    amount: Annotated[int, Meta(ge=0, description="Minor units, such as cents.")]
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$", description="ISO 4217 code.")]


class Line(msgspec.Struct, frozen=True):
    """One line of an order, priced when it was placed."""

    product_id: Id
    quantity: Quantity
    unit_price: Money


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all payloads.

    `TYPE` is the CloudEvents type, `SOURCE` the CloudEvents source, `SUBJECT` the field whose value is the
    subject and the partition key.
    """

    TYPE: ClassVar[str]
    SOURCE: ClassVar[str]
    SUBJECT: ClassVar[str]

    @property
    def subject(self) -> str:
        """The id of the entity that the event is about."""
        return str(getattr(self, self.SUBJECT))


class OrderPlaced(Payload, frozen=True, kw_only=True):
    """An order was placed and waits for stock."""

    TYPE: ClassVar[str] = "shop.order.placed.v1"
    SOURCE: ClassVar[str] = "/orders"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    user_id: Id
    lines: Annotated[list[Line], Meta(min_length=1, max_length=100)]
    total: Money


class OrderConfirmed(Payload, frozen=True, kw_only=True):
    """An order is paid: its reservation becomes a sale. `product_ids` saves its subscribers a look-up."""

    TYPE: ClassVar[str] = "shop.order.confirmed.v1"
    SOURCE: ClassVar[str] = "/orders"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    user_id: Id
    total: Money
    product_ids: list[Id] = []


class OrderCancelled(Payload, frozen=True, kw_only=True):
    """An order ended before it was shipped; stock and money go back."""

    TYPE: ClassVar[str] = "shop.order.cancelled.v1"
    SOURCE: ClassVar[str] = "/orders"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    user_id: Id
    reason: Reason
    money_returned: Annotated[bool, Meta(description="All that was paid has gone back before: nothing more will.")] = (
        False
    )


class OrderShipped(Payload, frozen=True, kw_only=True):
    """An order left the warehouse."""

    TYPE: ClassVar[str] = "shop.order.shipped.v1"
    SOURCE: ClassVar[str] = "/orders"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    user_id: Id


class OrderDelivered(Payload, frozen=True, kw_only=True):
    """An order arrived."""

    TYPE: ClassVar[str] = "shop.order.delivered.v1"
    SOURCE: ClassVar[str] = "/orders"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    user_id: Id


class StockReserved(Payload, frozen=True, kw_only=True):
    """Every line of the order is held until `expires_at`."""

    TYPE: ClassVar[str] = "shop.stock.reserved.v1"
    SOURCE: ClassVar[str] = "/products"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    expires_at: datetime


class StockRejected(Payload, frozen=True, kw_only=True):
    """No line of the order is held (OUT_OF_STOCK, PRODUCT_UNAVAILABLE, RESERVATION_EXPIRED)."""

    TYPE: ClassVar[str] = "shop.stock.rejected.v1"
    SOURCE: ClassVar[str] = "/products"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    reason: Reason
    product_ids: list[Id] = []


class StockLow(Payload, frozen=True, kw_only=True):
    """What is available of a product fell below its threshold."""

    TYPE: ClassVar[str] = "shop.product.stock.low.v1"
    SOURCE: ClassVar[str] = "/products"
    SUBJECT: ClassVar[str] = "product_id"
    product_id: Id
    sku: Annotated[str, Meta(max_length=64)]
    available: Count
    threshold: Count


class PaymentCaptured(Payload, frozen=True, kw_only=True):
    """The order's amount was charged."""

    TYPE: ClassVar[str] = "shop.payment.captured.v1"
    SOURCE: ClassVar[str] = "/payments"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    payment_id: Id
    amount: Money


class PaymentDeclined(Payload, frozen=True, kw_only=True):
    """The provider refused the charge (PAYMENT_DECLINED, INSUFFICIENT_FUNDS, AMOUNT_NOT_CHARGEABLE)."""

    TYPE: ClassVar[str] = "shop.payment.declined.v1"
    SOURCE: ClassVar[str] = "/payments"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    payment_id: Id
    reason: Reason


class PaymentRefunded(Payload, frozen=True, kw_only=True):
    """Money went back; `refunded` is the total so far, `amount` this refund."""

    TYPE: ClassVar[str] = "shop.payment.refunded.v1"
    SOURCE: ClassVar[str] = "/payments"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    user_id: Id
    payment_id: Id
    refund_id: Id
    amount: Money
    refunded: Money


class PaymentRefundFailed(Payload, frozen=True, kw_only=True):
    """A refund that `payment.refunded` told of did not arrive: the money is with the shop again."""

    TYPE: ClassVar[str] = "shop.payment.refund.failed.v1"
    SOURCE: ClassVar[str] = "/payments"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    payment_id: Id
    refund_id: Id
    amount: Money
    refunded: Annotated[Money, Meta(description="The total that went back, without this refund.")]


class PaymentDisputed(Payload, frozen=True, kw_only=True):
    """The payer's bank disputes the charge: the money is in question until `payment.dispute_closed`."""

    TYPE: ClassVar[str] = "shop.payment.disputed.v1"
    SOURCE: ClassVar[str] = "/payments"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    payment_id: Id
    dispute_id: Id
    amount: Money


class PaymentDisputeClosed(Payload, frozen=True, kw_only=True):
    """A dispute is decided. LOST: its amount is the payer's again."""

    TYPE: ClassVar[str] = "shop.payment.dispute.closed.v1"
    SOURCE: ClassVar[str] = "/payments"
    SUBJECT: ClassVar[str] = "order_id"
    order_id: Id
    payment_id: Id
    dispute_id: Id
    amount: Money
    outcome: Literal["WON", "LOST"]


class UserRegistered(Payload, frozen=True, kw_only=True):
    """Somebody has an account now."""

    TYPE: ClassVar[str] = "shop.user.registered.v1"
    SOURCE: ClassVar[str] = "/users"
    SUBJECT: ClassVar[str] = "user_id"
    user_id: Id


class UserChallenged(Payload, frozen=True, kw_only=True):
    """Somebody is to prove that they read the account's mail; the token is asked for when the mail is sent."""

    TYPE: ClassVar[str] = "shop.user.challenged.v1"
    SOURCE: ClassVar[str] = "/users"
    SUBJECT: ClassVar[str] = "user_id"
    user_id: Id
    purpose: Literal["PASSWORD_RESET", "EMAIL_VERIFICATION"]
    occasion: Annotated[
        Literal["REQUEST", "REGISTRATION"],
        Meta(description="They were asked for it, or somebody tried to register with their address."),
    ] = "REQUEST"


class UserEmailChangeRequested(Payload, frozen=True, kw_only=True):
    """An account wants another e-mail address: a code goes to that address, which users tells when the mail is sent."""

    TYPE: ClassVar[str] = "shop.user.email.change.requested.v1"
    SOURCE: ClassVar[str] = "/users"
    SUBJECT: ClassVar[str] = "user_id"
    user_id: Id


class UserEmailChanged(Payload, frozen=True, kw_only=True):
    """An account has another e-mail address: the one before is told, with a code that undoes the change."""

    TYPE: ClassVar[str] = "shop.user.email.changed.v1"
    SOURCE: ClassVar[str] = "/users"
    SUBJECT: ClassVar[str] = "user_id"
    user_id: Id
    change_id: Id


class UserPasswordChanged(Payload, frozen=True, kw_only=True):
    """An account has another password: its owner is told."""

    TYPE: ClassVar[str] = "shop.user.password.changed.v1"
    SOURCE: ClassVar[str] = "/users"
    SUBJECT: ClassVar[str] = "user_id"
    user_id: Id


class UserDeleted(Payload, frozen=True, kw_only=True):
    """An account is gone: everyone erases what names the person."""

    TYPE: ClassVar[str] = "shop.user.deleted.v1"
    SOURCE: ClassVar[str] = "/users"
    SUBJECT: ClassVar[str] = "user_id"
    user_id: Id


class NotificationBounced(Payload, frozen=True, kw_only=True):
    """The address answered that it will never take mail."""

    TYPE: ClassVar[str] = "shop.notification.bounced.v1"
    SOURCE: ClassVar[str] = "/notifications"
    SUBJECT: ClassVar[str] = "notification_id"
    notification_id: Id
    user_id: Id


class SweepDue(Payload, frozen=True, kw_only=True):
    """A PingSource's tick: look after what is overdue. Its type and source are Knative's."""

    TYPE: ClassVar[str] = "dev.knative.sources.ping"
    SOURCE: ClassVar[str] = "/apis/v1/namespaces/shop/pingsources/sweep"
    SUBJECT: ClassVar[str] = "sweep"
    sweep: str = "all"


SUBSCRIBERS: dict[type[Payload], tuple[str, ...]] = {
    OrderPlaced: ("products",),
    OrderConfirmed: ("products", "notifications"),
    OrderCancelled: ("products", "payments", "notifications"),
    OrderShipped: ("notifications",),
    OrderDelivered: ("notifications",),
    StockReserved: ("orders", "payments"),
    StockRejected: ("orders",),
    StockLow: ("notifications",),
    PaymentCaptured: ("orders",),
    PaymentDeclined: ("orders",),
    PaymentRefunded: ("orders", "notifications"),
    PaymentRefundFailed: ("orders",),
    PaymentDisputed: ("orders",),
    PaymentDisputeClosed: ("orders",),
    UserRegistered: ("notifications",),
    UserChallenged: ("notifications",),
    UserEmailChangeRequested: ("notifications",),
    UserEmailChanged: ("notifications",),
    UserPasswordChanged: ("notifications",),
    UserDeleted: ("orders", "payments", "notifications"),
    NotificationBounced: ("users",),
    SweepDue: ("users", "products", "orders", "payments", "notifications"),
}
"""Which domains react to what; the Triggers in knative/base are generated from it."""

CATALOG: dict[str, type[Payload]] = {payload.TYPE: payload for payload in SUBSCRIBERS}
"""Payload class by CloudEvents type."""


def subscriptions_of(domain: str) -> set[str]:
    """The event types that a domain reacts to."""
    return {payload.TYPE for payload, domains in SUBSCRIBERS.items() if domain in domains}


def subscribers() -> list[str]:
    """The domains that react to events, sorted."""
    return sorted({domain for domains in SUBSCRIBERS.values() for domain in domains})


def trigger_name(domain: str) -> str:
    """The name of the Trigger that delivers a domain's events: that of the service which it delivers them to."""
    return f"{domain}-events"
