"""The entities of orders, their states and transitions.

PLACED -> RESERVED -> CONFIRMED -> SHIPPED -> DELIVERED, and CANCELLED from any state before SHIPPED. A command
(`cancel`, `ship`, `deliver`) raises when the state forbids it. Events (`stock_reserved`, `payment_captured`, ...) may
arrive late, twice and in any order. The method for an event does what the state still allows and otherwise nothing, so
that the final state does not depend on the order of arrival. Each change appends an entry to the timeline; a method
that appends none has changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from events.catalog import (
    Line,
    Money,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderPlaced,
    OrderShipped,
    Payload,
)
from functions.runtime.addresses import PostalAddress
from functions.runtime.errors import failed_precondition


class Status(StrEnum):
    """The state of an order."""

    PLACED = "PLACED"
    RESERVED = "RESERVED"
    CONFIRMED = "CONFIRMED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PLACED: frozenset({Status.RESERVED, Status.CANCELLED}),
    Status.RESERVED: frozenset({Status.CONFIRMED, Status.CANCELLED}),
    Status.CONFIRMED: frozenset({Status.SHIPPED, Status.CANCELLED}),
    Status.SHIPPED: frozenset({Status.DELIVERED}),
    Status.DELIVERED: frozenset(),
    Status.CANCELLED: frozenset(),
}
FINAL = frozenset({Status.DELIVERED, Status.CANCELLED})
UNPAID = frozenset({Status.PLACED, Status.RESERVED})

TIMED_OUT = "TIMED_OUT"
ACCOUNT_DELETED = "ACCOUNT_DELETED"
REFUNDED = "REFUNDED"
REFUND_FAILED = "REFUND_FAILED"
PAYMENT_DISPUTED = "PAYMENT_DISPUTED"
DISPUTE_WON = "DISPUTE_WON"
DISPUTE_LOST = "DISPUTE_LOST"
PAID_AFTER_CANCELLATION = "PAID_AFTER_CANCELLATION"
STOCK_LOST_AFTER_SHIPPING = "STOCK_LOST_AFTER_SHIPPING"

SAGA_REASONS = frozenset(
    {
        "OUT_OF_STOCK",
        "PRODUCT_UNAVAILABLE",
        "RESERVATION_EXPIRED",
        "PAYMENT_DECLINED",
        "INSUFFICIENT_FUNDS",
        "AMOUNT_NOT_CHARGEABLE",
        TIMED_OUT,
    }
)
"""Reasons for which the saga cancels an order."""

PLATFORM_REASONS = SAGA_REASONS | {
    ACCOUNT_DELETED,
    REFUNDED,
    REFUND_FAILED,
    PAYMENT_DISPUTED,
    DISPUTE_WON,
    DISPUTE_LOST,
    PAID_AFTER_CANCELLATION,
    STOCK_LOST_AFTER_SHIPPING,
}
"""Reasons that a person may not give, because mails, metrics and the timeline distinguish them."""


@dataclass(frozen=True)
class OrderLine:
    """An ordered product with its price, name and SKU at the time of the order."""

    product_id: str
    quantity: int
    unit_price: Money
    name: str
    sku: str


@dataclass(frozen=True)
class TimelineEntry:
    """An entry of the timeline: the order was in `status` from `at` on. `reason` is UPPER_SNAKE or empty."""

    status: Status
    at: datetime
    reason: str = ""


class DisputeState(StrEnum):
    """The state of a payment dispute."""

    OPEN = "OPEN"
    WON = "WON"
    LOST = "LOST"


@dataclass(frozen=True)
class Dispute:
    """A dispute in which the payer's bank contests `amount` minor units of the payment."""

    amount: int
    state: DisputeState = DisputeState.OPEN


@dataclass(frozen=True)
class Receipt:
    """The stored result of an idempotency key: only the order's id, so that it holds no personal data to erase."""

    id: str
    version: int = 1


@dataclass
class DeletedAccount:
    """A deleted account. Its access tokens remain valid for a while, but must not place orders."""

    id: str
    deleted_at: datetime
    version: int = 0


@dataclass
class Order:
    """An order. `payment_token` is the payer's secret and is stored only while the order is payable."""

    id: str
    user_id: str
    lines: list[OrderLine]
    total: Money
    shipping_address: PostalAddress | None = field(repr=False)
    created_at: datetime
    updated_at: datetime
    moved_at: datetime
    status: Status = Status.PLACED
    payment_token: str = field(default="", repr=False)
    timeline: list[TimelineEntry] = field(default_factory=list)
    cancel_reason: str = ""
    cancelled_by: str = ""  # a user's id; empty when the platform cancelled
    # Refund id to minor units; 0 for a refund that the payer's bank returned.
    refunds: dict[str, int] = field(default_factory=dict)
    disputes: dict[str, Dispute] = field(default_factory=dict)  # by dispute id
    version: int = 0

    @property
    def refunded(self) -> Money:
        """The amount refunded so far."""
        return Money(sum(self.refunds.values()), self.total.currency)

    @property
    def disputed(self) -> bool:
        """Whether a dispute of the payment is open."""
        return any(dispute.state is DisputeState.OPEN for dispute in self.disputes.values())

    @property
    def returned(self) -> bool:
        """Whether the payer got the whole total back through refunds and lost disputes."""
        lost = sum(it.amount for it in self.disputes.values() if it.state is DisputeState.LOST)
        return 0 < self.total.amount <= sum(self.refunds.values()) + lost

    @property
    def payable(self) -> bool:
        """Whether the order waits for its payment."""
        return self.status in UNPAID

    def placed(self) -> list[Payload]:
        """Record that the order was placed."""
        self._record(self.created_at)
        lines = [Line(line.product_id, line.quantity, line.unit_price) for line in self.lines]
        return [OrderPlaced(order_id=self.id, user_id=self.user_id, lines=lines, total=self.total)]

    def as_placed(self) -> Order:
        """Return the order in its state when it was placed. A repeated idempotency key returns this."""
        first = self.timeline[:1]
        return Order(
            id=self.id,
            user_id=self.user_id,
            lines=self.lines,
            total=self.total,
            shipping_address=self.shipping_address,
            created_at=self.created_at,
            updated_at=self.created_at,
            moved_at=self.created_at,
            timeline=first,
            version=1,
        )

    # Commands

    def cancel(self, at: datetime, reason: str, by: str = "") -> list[Payload]:
        """Cancel the order before it is shipped. A second cancellation by the same person changes nothing.

        Raises FAILED_PRECONDITION (ILLEGAL_TRANSITION).
        """
        if self.status is Status.CANCELLED and by and self.cancelled_by == by:
            return []
        self._move(Status.CANCELLED, at, reason)
        self.cancel_reason, self.cancelled_by, self.payment_token = reason, by, ""
        return [OrderCancelled(order_id=self.id, user_id=self.user_id, reason=reason, money_returned=self.returned)]

    def ship(self, at: datetime) -> list[Payload]:
        """Record that the order left the warehouse.

        Raises FAILED_PRECONDITION (ILLEGAL_TRANSITION, ORDER_DISPUTED, ORDER_REFUNDED).
        """
        if self.status is Status.CONFIRMED and self.disputed:
            raise failed_precondition(
                "ORDER_DISPUTED", "The payment is disputed: nothing is shipped until that is decided."
            )
        if self.status is Status.CONFIRMED and self.returned:
            raise failed_precondition("ORDER_REFUNDED", "The order was refunded in full and cannot be shipped.")
        self._move(Status.SHIPPED, at)
        return [OrderShipped(order_id=self.id, user_id=self.user_id)]

    def deliver(self, at: datetime) -> list[Payload]:
        """Record that the order arrived. Raises FAILED_PRECONDITION (ILLEGAL_TRANSITION)."""
        self._move(Status.DELIVERED, at)
        return [OrderDelivered(order_id=self.id, user_id=self.user_id)]

    # Reactions to events

    def stock_reserved(self, at: datetime) -> list[Payload]:
        """Record that all lines are reserved.

        A late event changes nothing: the payment has already implied the reservation, or the cancellation releases it.
        """
        if self.status is Status.PLACED:
            self._move(Status.RESERVED, at)
        return []

    def stock_rejected(self, at: datetime, reason: str) -> list[Payload]:
        """Cancel an order whose stock is not reserved, or no longer reserved. The payments service then refunds it.

        After shipping, only record the loss in the timeline.
        """
        if Status.CANCELLED in TRANSITIONS[self.status]:
            return self.cancel(at, reason)
        if self.status is not Status.CANCELLED:
            self._record_once(at, STOCK_LOST_AFTER_SHIPPING)
        return []

    def payment_captured(self, at: datetime, amount: Money) -> list[Payload]:
        """Confirm the order. A payment that arrives before the reservation's event implies the reservation.

        A cancelled order stays cancelled: the payments service refunds it on order.cancelled.

        Raises:
            FailedPrecondition: AMOUNT_MISMATCH. The event becomes a dead letter, which an operator must examine.
        """
        if amount != self.total:
            raise failed_precondition("AMOUNT_MISMATCH", "The amount paid is not the order's total.")
        if not self.payable:
            if all(entry.status is not Status.CONFIRMED for entry in self.timeline):
                self._record_once(at, PAID_AFTER_CANCELLATION)
            return []
        self.stock_reserved(at)
        self._move(Status.CONFIRMED, at)
        self.payment_token = ""
        product_ids = list(dict.fromkeys(line.product_id for line in self.lines))
        return [OrderConfirmed(order_id=self.id, user_id=self.user_id, total=self.total, product_ids=product_ids)]

    def payment_declined(self, at: datetime, reason: str) -> list[Payload]:
        """Cancel the order unless it is paid or final."""
        return self.cancel(at, reason) if self.payable else []

    def payment_refunded(self, at: datetime, refund_id: str, amount: Money) -> list[Payload]:
        """Record each refund once. A full refund before shipping cancels the order."""
        self._require_currency(amount)
        if refund_id in self.refunds:
            return []
        self.refunds[refund_id] = amount.amount
        self._record(at, REFUNDED)
        return self._cancel_when_returned(at, REFUNDED)

    def refund_failed(self, at: datetime, refund_id: str, amount: Money) -> list[Payload]:
        """Record that the payer's bank returned a refund. A cancelled order stays cancelled."""
        self._require_currency(amount)
        if self.refunds.get(refund_id) != 0:
            self.refunds[refund_id] = 0
            self._record(at, REFUND_FAILED)
        return []

    def payment_disputed(self, at: datetime, dispute_id: str, amount: Money) -> list[Payload]:
        """Prevent the order from being shipped. A dispute that is already known changes nothing."""
        self._require_currency(amount)
        if dispute_id not in self.disputes:
            self.disputes[dispute_id] = Dispute(amount.amount)
            self._record(at, PAYMENT_DISPUTED)
        return []

    def dispute_closed(self, at: datetime, dispute_id: str, amount: Money, outcome: str) -> list[Payload]:
        """Close a dispute, which allows shipping again. Cancel an unshipped order whose total was lost or refunded."""
        self._require_currency(amount)
        known = self.disputes.get(dispute_id)
        if known is not None and known.state is not DisputeState.OPEN:
            return []
        state = DisputeState(outcome)
        self.disputes[dispute_id] = Dispute(amount.amount, state)
        reason = DISPUTE_LOST if state is DisputeState.LOST else DISPUTE_WON
        self._record(at, reason)
        return self._cancel_when_returned(at, reason)

    def time_out(self, at: datetime, timeout: timedelta) -> list[Payload]:
        """Cancel the order if it is unpaid and its status has not changed for `timeout`."""
        overdue = self.payable and self.moved_at <= at - timeout
        return self.cancel(at, TIMED_OUT) if overdue else []

    def erase_person(self, at: datetime) -> list[Payload]:
        """Erase the recipient. Cancel an unshipped order, because it can no longer be shipped; it is then refunded."""
        if self.shipping_address is None:
            return []
        events: Sequence[Payload] = ()
        if Status.CANCELLED in TRANSITIONS[self.status]:
            events = self.cancel(at, ACCOUNT_DELETED)
        else:
            self._record(at, ACCOUNT_DELETED)
        self.shipping_address, self.payment_token = None, ""
        return list(events)

    def _cancel_when_returned(self, at: datetime, reason: str) -> list[Payload]:
        if self.returned and Status.CANCELLED in TRANSITIONS[self.status]:
            return self.cancel(at, reason)
        return []

    def _require_currency(self, amount: Money) -> None:
        if amount.currency != self.total.currency:
            raise failed_precondition("CURRENCY_MISMATCH", "The currency is not the order's.")

    def _move(self, to: Status, at: datetime, reason: str = "") -> None:
        if to not in TRANSITIONS[self.status]:
            raise failed_precondition("ILLEGAL_TRANSITION", f"A {self.status} order cannot become {to}.")
        self.status = to
        self._record(at, reason)
        self.moved_at = self.updated_at

    def _record(self, at: datetime, reason: str = "") -> None:
        # The clocks of two processes may differ, but the times in the timeline must never decrease.
        self.updated_at = max(at, self.updated_at)
        self.timeline.append(TimelineEntry(self.status, self.updated_at, reason))

    def _record_once(self, at: datetime, reason: str) -> None:
        if all(entry.reason != reason for entry in self.timeline):
            self._record(at, reason)
