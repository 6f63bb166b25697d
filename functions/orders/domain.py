"""An order and the rules of its life.

PLACED -> RESERVED -> CONFIRMED -> SHIPPED -> DELIVERED, and CANCELLED from any state before SHIPPED. What
people ask for (`cancel`, `ship`, `deliver`) raises when the state forbids it. What events tell of
(`stock_reserved`, `payment_captured`, ...) comes late, twice and in any order: it does what still makes sense
and otherwise nothing, so that every order of arrival ends in the same state. Each change leaves an entry in
the timeline; a call that leaves none changed nothing.
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
    """Where an order stands."""

    PLACED = "PLACED"
    RESERVED = "RESERVED"
    CONFIRMED = "CONFIRMED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


NEXT: dict[Status, frozenset[Status]] = {
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
"""Why the saga itself cancels an order."""

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
"""What people may not give as a reason of their own: mails, metrics and the timeline tell these apart."""


@dataclass(frozen=True)
class OrderLine:
    """A product as it was in the catalogue when the order was placed."""

    product_id: str
    quantity: int
    unit_price: Money
    name: str
    sku: str


@dataclass(frozen=True)
class TimelineEntry:
    """The order stood at `status` from `at` on; `reason` is UPPER_SNAKE or empty."""

    status: Status
    at: datetime
    reason: str = ""


class DisputeState(StrEnum):
    """Where a dispute of the payment stands."""

    OPEN = "OPEN"
    WON = "WON"
    LOST = "LOST"


@dataclass(frozen=True)
class Dispute:
    """The payer's bank disputes `amount` minor units of what was paid."""

    amount: int
    state: DisputeState = DisputeState.OPEN


@dataclass
class Order:
    """The entity. `payment_token` is the payer's secret: kept until the payment is final, for payments."""

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
    cancelled_by: str = ""  # the person who did; empty when the platform did
    refunds: dict[str, int] = field(
        default_factory=dict
    )  # minor units by refund id; 0 for one that came back
    disputes: dict[str, Dispute] = field(default_factory=dict)  # by dispute id
    version: int = 0

    @property
    def refunded(self) -> Money:
        """What went back to the payer so far."""
        return Money(sum(self.refunds.values()), self.total.currency)

    @property
    def disputed(self) -> bool:
        """Whether a dispute of the payment is open."""
        return any(dispute.state is DisputeState.OPEN for dispute in self.disputes.values())

    @property
    def returned(self) -> bool:
        """Whether all that was paid is the payer's again, by refunds and lost disputes."""
        lost = sum(it.amount for it in self.disputes.values() if it.state is DisputeState.LOST)
        return 0 < self.total.amount <= sum(self.refunds.values()) + lost

    @property
    def payable(self) -> bool:
        """Whether charging for it makes sense."""
        return self.status in UNPAID

    @property
    def settled_at(self) -> datetime | None:
        """When the saga ended, well or not: first CONFIRMED or CANCELLED."""
        ends = (Status.CONFIRMED, Status.CANCELLED)
        return next((entry.at for entry in self.timeline if entry.status in ends), None)

    def placed(self) -> list[Payload]:
        """Record the birth."""
        self._note(self.created_at)
        lines = [Line(line.product_id, line.quantity, line.unit_price) for line in self.lines]
        return [OrderPlaced(order_id=self.id, user_id=self.user_id, lines=lines, total=self.total)]

    def as_placed(self) -> Order:
        """How it looked when it was placed: the answer that an Idempotency-Key replays."""
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

    # What people ask for

    def cancel(self, at: datetime, reason: str, by: str = "") -> list[Payload]:
        """End it before shipping. The same person's second cancellation changes nothing."""
        if self.status is Status.CANCELLED and by and self.cancelled_by == by:
            return []
        self._move(Status.CANCELLED, at, reason)
        self.cancel_reason, self.cancelled_by, self.payment_token = reason, by, ""
        return [
            OrderCancelled(
                order_id=self.id, user_id=self.user_id, reason=reason, money_returned=self.returned
            )
        ]

    def ship(self, at: datetime) -> list[Payload]:
        """Let it leave the warehouse.

        Raises FAILED_PRECONDITION: ILLEGAL_TRANSITION, ORDER_DISPUTED, ORDER_REFUNDED.
        """
        if self.status is Status.CONFIRMED and self.disputed:
            raise failed_precondition(
                "ORDER_DISPUTED", "The payment is disputed: nothing is shipped until that is decided."
            )
        if self.status is Status.CONFIRMED and self.returned:
            raise failed_precondition("ORDER_REFUNDED", "All that was paid went back: nothing is shipped.")
        self._move(Status.SHIPPED, at)
        return [OrderShipped(order_id=self.id, user_id=self.user_id)]

    def deliver(self, at: datetime) -> list[Payload]:
        """It arrived."""
        self._move(Status.DELIVERED, at)
        return [OrderDelivered(order_id=self.id, user_id=self.user_id)]

    # What events tell of

    def stock_reserved(self, at: datetime) -> list[Payload]:
        """All lines are held. Else it is late: the payment implied it, or the cancellation releases them."""
        if self.status is Status.PLACED:
            self._move(Status.RESERVED, at)
        return []

    def stock_rejected(self, at: datetime, reason: str) -> list[Payload]:
        """No line is held, or no longer: cancel, and payments refunds what it took."""
        if Status.CANCELLED in NEXT[self.status]:
            return self.cancel(at, reason)
        if self.status is not Status.CANCELLED:
            self._note_once(at, STOCK_LOST_AFTER_SHIPPING)
        return []

    def payment_captured(self, at: datetime, amount: Money) -> list[Payload]:
        """Paid; when this overtakes the news of the reservation, it implies it.

        A cancelled order stays cancelled: payments refunds on order.cancelled. Raises for another amount than
        the total: somebody has to look at that.
        """
        if amount != self.total:
            raise failed_precondition("AMOUNT_MISMATCH", "The amount paid is not the order's total.")
        if not self.payable:
            if all(entry.status is not Status.CONFIRMED for entry in self.timeline):
                self._note_once(at, PAID_AFTER_CANCELLATION)
            return []
        self.stock_reserved(at)
        self._move(Status.CONFIRMED, at)
        self.payment_token = ""
        return [OrderConfirmed(order_id=self.id, user_id=self.user_id, total=self.total)]

    def payment_declined(self, at: datetime, reason: str) -> list[Payload]:
        """The payer's bank refused; no news once the order is paid or over."""
        return self.cancel(at, reason) if self.payable else []

    def payment_refunded(self, at: datetime, refund_id: str, amount: Money) -> list[Payload]:
        """Book money that went back; each refund counts once. All of it back before shipping cancels the order."""
        self._require_currency(amount)
        if refund_id in self.refunds:
            return []
        self.refunds[refund_id] = amount.amount
        self._note(at, REFUNDED)
        return self._cancel_when_returned(at, REFUNDED)

    def refund_failed(self, at: datetime, refund_id: str, amount: Money) -> list[Payload]:
        """Book a refund that came back from the payer's bank. A cancelled order stays cancelled."""
        self._require_currency(amount)
        if self.refunds.get(refund_id) != 0:
            self.refunds[refund_id] = 0
            self._note(at, REFUND_FAILED)
        return []

    def payment_disputed(self, at: datetime, dispute_id: str, amount: Money) -> list[Payload]:
        """Hold the order back from shipping; no news once the dispute is closed."""
        self._require_currency(amount)
        if dispute_id not in self.disputes:
            self.disputes[dispute_id] = Dispute(amount.amount)
            self._note(at, PAYMENT_DISPUTED)
        return []

    def dispute_closed(self, at: datetime, dispute_id: str, amount: Money, outcome: str) -> list[Payload]:
        """Let the order go on, or, where all of the money is lost before shipping, cancel it."""
        self._require_currency(amount)
        known = self.disputes.get(dispute_id)
        if known is not None and known.state is not DisputeState.OPEN:
            return []
        state = DisputeState(outcome)
        self.disputes[dispute_id] = Dispute(amount.amount, state)
        reason = DISPUTE_LOST if state is DisputeState.LOST else DISPUTE_WON
        self._note(at, reason)
        return self._cancel_when_returned(at, reason)

    def time_out(self, at: datetime, patience: timedelta) -> list[Payload]:
        """Cancel it when it has not moved for `patience` and nobody paid."""
        overdue = self.payable and self.moved_at <= at - patience
        return self.cancel(at, TIMED_OUT) if overdue else []

    def erase_person(self, at: datetime) -> list[Payload]:
        """Forget who receives it. What was not shipped cannot be any more: it is cancelled, and refunded."""
        if self.shipping_address is None:
            return []
        events: Sequence[Payload] = ()
        if Status.CANCELLED in NEXT[self.status]:
            events = self.cancel(at, ACCOUNT_DELETED)
        else:
            self._note(at, ACCOUNT_DELETED)
        self.shipping_address, self.payment_token = None, ""
        return list(events)

    def _cancel_when_returned(self, at: datetime, reason: str) -> list[Payload]:
        if self.returned and Status.CANCELLED in NEXT[self.status]:
            return self.cancel(at, reason)
        return []

    def _require_currency(self, amount: Money) -> None:
        if amount.currency != self.total.currency:
            raise failed_precondition("CURRENCY_MISMATCH", "The currency is not the order's.")

    def _move(self, to: Status, at: datetime, reason: str = "") -> None:
        if to not in NEXT[self.status]:
            raise failed_precondition("ILLEGAL_TRANSITION", f"A {self.status} order cannot become {to}.")
        self.status = to
        self._note(at, reason)
        self.moved_at = self.updated_at

    def _note(self, at: datetime, reason: str = "") -> None:
        # Two processes' clocks may differ: the timeline never runs backwards.
        self.updated_at = max(at, self.updated_at)
        self.timeline.append(TimelineEntry(self.status, self.updated_at, reason))

    def _note_once(self, at: datetime, reason: str) -> None:
        if all(entry.reason != reason for entry in self.timeline):
            self._note(at, reason)
