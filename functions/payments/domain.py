"""Payments and refunds: what may happen to them, and the events that tell of it.

One payment per order, its id derived from the order's. Amounts inside a payment are minor units of its
own currency.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from events.catalog import NOBODY, Money, Payload, PaymentCaptured, PaymentDeclined, PaymentRefunded
from functions.runtime.errors import failed_precondition, invalid

ORDER_CANCELLED = "ORDER_CANCELLED"
REQUESTED_BY_MERCHANT = "REQUESTED_BY_MERCHANT"


class PaymentStatus(StrEnum):
    """Where a payment stands; DECLINED, VOIDED and REFUNDED are final."""

    PENDING = "PENDING"
    CAPTURED = "CAPTURED"
    DECLINED = "DECLINED"
    VOIDED = "VOIDED"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"


class RefundStatus(StrEnum):
    """Where a refund stands; all but PENDING are final."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


def payment_id(order_id: str) -> str:
    """The id of an order's one payment."""
    return "pay_" + order_id[4:]


def cancellation_refund_id(order_id: str) -> str:
    """The id of the refund that a cancelled order gets by itself: derived, so that it is made once."""
    return "ref_" + order_id[4:]


@dataclass
class Refund:
    """Money on its way back. PENDING until the provider has answered."""

    id: str
    payment_id: str
    order_id: str
    amount: Money
    reason: str
    created_at: datetime
    updated_at: datetime
    status: RefundStatus = RefundStatus.PENDING
    version: int = 0

    def settle(self, status: RefundStatus, now: datetime) -> None:
        """The provider has answered."""
        self.status = status
        self.updated_at = now


@dataclass
class Payment:
    """The payment of one order.

    `amount` is None only in the tombstone of an order that ended before anybody asked to charge it.
    `refunding` is what was asked back and not yet answered: captured >= refunded + refunding, always.
    `void_requested`: the order is cancelled, so a capture that still comes in goes back at once.
    `user_id` is empty once the account is deleted.
    """

    id: str
    order_id: str
    user_id: str
    amount: Money | None
    created_at: datetime
    updated_at: datetime
    status: PaymentStatus = PaymentStatus.PENDING
    captured: int = 0
    refunded: int = 0
    refunding: int = 0
    void_requested: bool = False
    reason: str = ""
    version: int = 0

    @property
    def pending(self) -> bool:
        """The provider has not answered the charge."""
        return self.status is PaymentStatus.PENDING

    @property
    def left(self) -> int:
        """What could still be asked back."""
        return self.captured - self.refunded - self.refunding

    def money(self, amount: int) -> Money:
        """`amount` in this payment's currency."""
        if self.amount is None:
            raise failed_precondition("NOT_CAPTURED", "Nothing was charged for this order.")
        return Money(amount, self.amount.currency)

    def capture(self, now: datetime) -> list[Payload]:
        """The provider charged the amount."""
        money = self.money(self.amount.amount if self.amount else 0)
        self.captured = money.amount
        self._become(PaymentStatus.CAPTURED, now)
        return [PaymentCaptured(order_id=self.order_id, payment_id=self.id, amount=money)]

    def decline(self, reason: str, now: datetime) -> list[Payload]:
        """The provider refused, for good."""
        self.reason = reason
        self._become(PaymentStatus.DECLINED, now)
        return [PaymentDeclined(order_id=self.order_id, payment_id=self.id, reason=reason)]

    def void(self, now: datetime) -> list[Payload]:
        """Nothing was charged, and nothing will be. The order knows: it asked for it."""
        self._become(PaymentStatus.VOIDED, now)
        return []

    def request_void(self, now: datetime) -> None:
        """The order is cancelled: whoever settles this payment lets nothing remain."""
        self.void_requested = True
        self.updated_at = now

    def ask_back(self, refund_id: str, amount: Money | None, reason: str, now: datetime) -> Refund:
        """Set `amount` aside for a refund, None for all that is left.

        Raises FAILED_PRECONDITION (NOT_CAPTURED, REFUND_EXCEEDS_CAPTURED) or INVALID_ARGUMENT
        (CURRENCY_MISMATCH).
        """
        if self.status in (PaymentStatus.PENDING, PaymentStatus.DECLINED, PaymentStatus.VOIDED):
            raise failed_precondition("NOT_CAPTURED", "Nothing was charged for this order.")
        money = amount or self.money(self.left)
        if money.currency != self.money(0).currency:
            raise invalid(
                "The currency is not the payment's.",
                ("amount.currency", f"must be {self.money(0).currency}"),
                reason="CURRENCY_MISMATCH",
            )
        if not 0 < money.amount <= self.left:
            raise failed_precondition("REFUND_EXCEEDS_CAPTURED", "More than what is left of the charge.")
        self.refunding += money.amount
        self.updated_at = now
        return Refund(refund_id, self.id, self.order_id, money, reason, now, now)

    def give_back(self, refund: Refund, now: datetime) -> list[Payload]:
        """The provider gave `refund` back."""
        refund.settle(RefundStatus.SUCCEEDED, now)
        self.refunding -= refund.amount.amount
        self.refunded += refund.amount.amount
        whole = self.refunded == self.captured
        self._become(PaymentStatus.REFUNDED if whole else PaymentStatus.PARTIALLY_REFUNDED, now)
        return [
            PaymentRefunded(
                order_id=self.order_id,
                user_id=self.user_id or NOBODY,
                payment_id=self.id,
                refund_id=refund.id,
                amount=refund.amount,
                refunded=self.money(self.refunded),
            )
        ]

    def keep(self, refund: Refund, now: datetime) -> list[Payload]:
        """The provider refused `refund`: its amount may be asked back again."""
        refund.settle(RefundStatus.FAILED, now)
        self.refunding -= refund.amount.amount
        self.updated_at = now
        return []

    def _become(self, status: PaymentStatus, now: datetime) -> None:
        self.status = status
        self.updated_at = now


@dataclass
class Erasure:
    """An account that was deleted (its id), kept a while so that late events bring its name back nowhere."""

    id: str
    at: datetime
    version: int = 0
