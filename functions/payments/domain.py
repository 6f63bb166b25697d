"""Payments, refunds and disputes: their state transitions, and the events that the transitions record.

An order has one payment, whose id is derived from the order's id. Amounts inside a payment are in minor units of its
currency.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from events.catalog import (
    ERASED_USER_ID,
    Money,
    Payload,
    PaymentCaptured,
    PaymentDeclined,
    PaymentDisputeClosed,
    PaymentDisputed,
    PaymentRefunded,
    PaymentRefundFailed,
)
from functions.runtime.errors import failed_precondition, invalid

ORDER_CANCELLED = "ORDER_CANCELLED"
REQUESTED_BY_MERCHANT = "REQUESTED_BY_MERCHANT"
MADE_AT_PROVIDER = "MADE_AT_THE_PROVIDER"


class PaymentStatus(StrEnum):
    """The state of a payment. DECLINED and VOIDED are final.

    DISPUTED means that a dispute is open, even if a part was refunded. CHARGED_BACK means that the payer has the whole
    amount back, and at least a part of it through a lost dispute.
    """

    PENDING = "PENDING"
    CAPTURED = "CAPTURED"
    DECLINED = "DECLINED"
    VOIDED = "VOIDED"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"
    DISPUTED = "DISPUTED"
    CHARGED_BACK = "CHARGED_BACK"


class RefundStatus(StrEnum):
    """The state of a refund. SUCCEEDED becomes FAILED if the payer's bank returns the money."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class DisputeStatus(StrEnum):
    """The state of a dispute. All but OPEN are final."""

    OPEN = "OPEN"
    WON = "WON"
    LOST = "LOST"


def payment_id(order_id: str) -> str:
    """Return the id of an order's payment."""
    return "pay_" + order_id[4:]


def cancellation_refund_id(order_id: str, attempt: int = 0) -> str:
    """Return the id of the automatic refund of a cancelled order. It is derived, so that the refund is made once.

    A further `attempt` is made only if the provider refused the previous one.
    """
    return "ref_" + (order_id[4:] if attempt == 0 else _digest(f"{order_id}/{attempt}"))


def derived_id(prefix: str, provider_id: str) -> str:
    """Return our id of a refund or dispute made at the provider. It is derived from `provider_id` to book it once."""
    return f"{prefix}_{_digest(provider_id)}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]


@dataclass
class Refund:
    """A refund of a payment, in full or in part. It is PENDING until the provider answers.

    `provider_id` is the provider's id of a refund that was made at the provider, and empty if the shop requested it.
    """

    id: str
    payment_id: str
    order_id: str
    amount: Money
    reason: str
    created_at: datetime
    updated_at: datetime
    status: RefundStatus = RefundStatus.PENDING
    provider_id: str = ""
    version: int = 0

    def settle(self, status: RefundStatus, now: datetime) -> None:
        """Record the provider's answer."""
        self.status = status
        self.updated_at = now


@dataclass
class Dispute:
    """A dispute of a charge by the payer's bank, as the provider reports it.

    `refundable` means that the provider still makes refunds, as it does while the bank only inquires.
    """

    id: str
    payment_id: str
    order_id: str
    amount: Money
    reason: str
    refundable: bool
    created_at: datetime
    updated_at: datetime
    status: DisputeStatus = DisputeStatus.OPEN
    version: int = 0


@dataclass
class Payment:
    """The payment of one order.

    `amount` is None only in the tombstone of an order that was cancelled before its charge was requested.
    `refunding` is the sum of the pending refunds. `disputed` is the sum of the open disputes, and `locked` the part of
    it during which the provider makes no refund. `charged_back` is the sum of the lost disputes.
    `void_requested` means that the order is cancelled. Money that is captured later, or that a won dispute frees, is
    then refunded at once. `user_id` is empty after the account is deleted.
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
    disputed: int = 0
    locked: int = 0
    charged_back: int = 0
    version: int = 0

    @property
    def pending(self) -> bool:
        """Whether the provider has not answered the charge yet."""
        return self.status is PaymentStatus.PENDING

    @property
    def refundable(self) -> int:
        """The amount that can still be refunded: 0 while a dispute locks it, and never negative."""
        if self.locked:
            return 0
        return max(0, self.captured - self.refunded - self.refunding - self.charged_back)

    def money(self, amount: int) -> Money:
        """Return `amount` in this payment's currency. Raises FAILED_PRECONDITION (NOT_CAPTURED) for a tombstone."""
        if self.amount is None:
            raise failed_precondition("NOT_CAPTURED", "Nothing was charged for this order.")
        return Money(amount, self.amount.currency)

    def capture(self, now: datetime) -> list[Payload]:
        """Record that the provider charged the amount."""
        money = self.money(self.amount.amount if self.amount else 0)
        self.captured = money.amount
        self._set_status(PaymentStatus.CAPTURED, now)
        return [PaymentCaptured(order_id=self.order_id, payment_id=self.id, amount=money)]

    def decline(self, reason: str, now: datetime) -> list[Payload]:
        """Record that the provider finally refused the charge."""
        self.reason = reason
        self._set_status(PaymentStatus.DECLINED, now)
        return [PaymentDeclined(order_id=self.order_id, payment_id=self.id, reason=reason)]

    def void(self, now: datetime) -> list[Payload]:
        """Record that nothing was or will be charged. It records no event, since the order is cancelled already."""
        self._set_status(PaymentStatus.VOIDED, now)
        return []

    def request_void(self, now: datetime) -> None:
        """Record that the order is cancelled, so that a late capture is refunded."""
        self.void_requested = True
        self.updated_at = now

    def request_refund(self, refund_id: str, amount: Money | None, reason: str, now: datetime) -> Refund:
        """Set an amount aside for a new refund: `amount`, or the whole refundable amount if that is None.

        Raises FAILED_PRECONDITION (NOT_CAPTURED, PAYMENT_DISPUTED, REFUND_EXCEEDS_CAPTURED) and INVALID_ARGUMENT
        (CURRENCY_MISMATCH).
        """
        if self.status in (PaymentStatus.PENDING, PaymentStatus.DECLINED, PaymentStatus.VOIDED):
            raise failed_precondition("NOT_CAPTURED", "Nothing was charged for this order.")
        if self.locked:
            raise failed_precondition("PAYMENT_DISPUTED", "A disputed payment cannot be refunded.")
        money = amount or self.money(self.refundable)
        if money.currency != self.money(0).currency:
            raise invalid(
                "The currency differs from the payment's.",
                ("amount.currency", f"must be {self.money(0).currency}"),
                reason="CURRENCY_MISMATCH",
            )
        if not 0 < money.amount <= self.refundable:
            raise failed_precondition("REFUND_EXCEEDS_CAPTURED", "The amount exceeds what can still be refunded.")
        self.refunding += money.amount
        self.updated_at = now
        return Refund(refund_id, self.id, self.order_id, money, reason, now, now)

    def complete_refund(self, refund: Refund, now: datetime) -> list[Payload]:
        """Record that the provider made the refund."""
        refund.settle(RefundStatus.SUCCEEDED, now)
        self.refunding -= refund.amount.amount
        self.refunded += refund.amount.amount
        self._derive_status(now)
        return [
            PaymentRefunded(
                order_id=self.order_id,
                user_id=self.user_id or ERASED_USER_ID,
                payment_id=self.id,
                refund_id=refund.id,
                amount=refund.amount,
                refunded=self.money(self.refunded),
            )
        ]

    def fail_refund(self, refund: Refund, now: datetime) -> list[Payload]:
        """Record that the provider refused the refund. Its amount can be refunded again."""
        refund.settle(RefundStatus.FAILED, now)
        self.refunding -= refund.amount.amount
        self.updated_at = now
        return []

    def adopt_refund(self, refund_id: str, provider_id: str, amount: Money, now: datetime) -> Refund:
        """Set `amount` aside for a refund that was made at the provider. `follow_refund` then settles the refund."""
        self.refunding += amount.amount
        self.updated_at = now
        reason = MADE_AT_PROVIDER
        return Refund(refund_id, self.id, self.order_id, amount, reason, now, now, provider_id=provider_id)

    def follow_refund(self, refund: Refund, status: RefundStatus, now: datetime) -> list[Payload]:
        """Update the refund to its status at the provider, from PENDING to any status or from SUCCEEDED to FAILED."""
        if status is RefundStatus.PENDING:
            return []
        if status is RefundStatus.SUCCEEDED:
            return self.complete_refund(refund, now)
        if refund.status is RefundStatus.SUCCEEDED:
            return self.return_refund(refund, now)
        return self.fail_refund(refund, now)

    def return_refund(self, refund: Refund, now: datetime) -> list[Payload]:
        """Record that the payer's bank returned the money of a completed refund."""
        refund.settle(RefundStatus.FAILED, now)
        self.refunded -= refund.amount.amount
        self._derive_status(now)
        return [
            PaymentRefundFailed(
                order_id=self.order_id,
                payment_id=self.id,
                refund_id=refund.id,
                amount=refund.amount,
                refunded=self.money(self.refunded),
            )
        ]

    def open_dispute(self, dispute: Dispute, now: datetime) -> list[Payload]:
        """Record that the payer's bank disputes an amount."""
        self.disputed += dispute.amount.amount
        self.locked += 0 if dispute.refundable else dispute.amount.amount
        self._derive_status(now)
        return [
            PaymentDisputed(order_id=self.order_id, payment_id=self.id, dispute_id=dispute.id, amount=dispute.amount)
        ]

    def lock_dispute(self, dispute: Dispute, now: datetime) -> list[Payload]:
        """Record that the bank's inquiry became a formal dispute, during which the provider makes no refund."""
        dispute.refundable, dispute.updated_at = False, now
        self.locked += dispute.amount.amount
        self.updated_at = now
        return []

    def close_dispute(self, dispute: Dispute, outcome: DisputeStatus, now: datetime) -> list[Payload]:
        """Record the bank's decision. After LOST the payer has the amount back."""
        dispute.status, dispute.updated_at = outcome, now
        self.disputed -= dispute.amount.amount
        self.locked -= 0 if dispute.refundable else dispute.amount.amount
        if outcome is DisputeStatus.LOST:
            self.charged_back += dispute.amount.amount
        self._derive_status(now)
        return [
            PaymentDisputeClosed(
                order_id=self.order_id,
                payment_id=self.id,
                dispute_id=dispute.id,
                amount=dispute.amount,
                outcome="LOST" if outcome is DisputeStatus.LOST else "WON",
            )
        ]

    def _derive_status(self, now: datetime) -> None:
        """Derive the status of a captured payment from its sums."""
        if self.disputed:
            self._set_status(PaymentStatus.DISPUTED, now)
        elif self.refunded + self.charged_back >= self.captured:
            whole = PaymentStatus.CHARGED_BACK if self.charged_back else PaymentStatus.REFUNDED
            self._set_status(whole, now)
        elif self.refunded + self.charged_back:
            self._set_status(PaymentStatus.PARTIALLY_REFUNDED, now)
        else:
            self._set_status(PaymentStatus.CAPTURED, now)

    def _set_status(self, status: PaymentStatus, now: datetime) -> None:
        self.status = status
        self.updated_at = now


@dataclass
class Reconciliation:
    """The progress of reconciliation: all changes at the provider before `until` are booked. Only one entity exists."""

    id: str
    until: datetime
    version: int = 0
