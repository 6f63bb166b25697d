"""Payments and refunds: what may happen to them, and the events that tell of it.

One payment per order, its id derived from the order's. Amounts inside a payment are minor units of its
own currency.
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
MADE_AT_THE_PROVIDER = "MADE_AT_THE_PROVIDER"


class PaymentStatus(StrEnum):
    """Where a payment stands; DECLINED and VOIDED are final.

    DISPUTED: a dispute is open, whatever went back. CHARGED_BACK: all of it is the payer's again, and at least a part
    by a lost dispute.
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
    """Where a refund stands. SUCCEEDED may still become FAILED: the payer's bank sends the money back."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class DisputeStatus(StrEnum):
    """Where a dispute stands; all but OPEN are final."""

    OPEN = "OPEN"
    WON = "WON"
    LOST = "LOST"


def payment_id(order_id: str) -> str:
    """The id of an order's one payment."""
    return "pay_" + order_id[4:]


def cancellation_refund_id(order_id: str, attempt: int = 0) -> str:
    """The id of the refund that a cancelled order gets by itself: derived, so that it is made once.

    A further `attempt` follows only where the one before was refused because of what somebody did at the provider.
    """
    return "ref_" + (order_id[4:] if attempt == 0 else _digest(f"{order_id}/{attempt}"))


def id_of_provider(prefix: str, provider_id: str) -> str:
    """Our id of what was made at the provider: derived from the provider's, so that it is booked once."""
    return f"{prefix}_{_digest(provider_id)}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]


@dataclass
class Refund:
    """Money on its way back. PENDING until the provider has answered.

    `provider_id` is the provider's name of a refund that was made there and not asked for here; else empty.
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
        """The provider has answered."""
        self.status = status
        self.updated_at = now


@dataclass
class Dispute:
    """A charge that the payer's bank disputes, as the provider tells.

    `refundable`: the provider still gives refunds, as it does while the bank only inquires.
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

    `amount` is None only in the tombstone of an order that ended before anybody asked to charge it.
    `refunding` is what was asked back and not yet answered. `disputed` is the sum of the open disputes, `locked` of
    those during which the provider gives no refund, `charged_back` of the lost ones.
    `void_requested`: the order is cancelled, so a capture that still comes in goes back at once, as does what a dispute
    that is won sets free. `user_id` is empty once the account is deleted.
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
        """The provider has not answered the charge."""
        return self.status is PaymentStatus.PENDING

    @property
    def left(self) -> int:
        """What could still be asked back; 0 also where the provider gave back what we ask for as well."""
        if self.locked:
            return 0
        return max(0, self.captured - self.refunded - self.refunding - self.charged_back)

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

        Raises FAILED_PRECONDITION (NOT_CAPTURED, PAYMENT_DISPUTED, REFUND_EXCEEDS_CAPTURED) or INVALID_ARGUMENT
        (CURRENCY_MISMATCH).
        """
        if self.status in (PaymentStatus.PENDING, PaymentStatus.DECLINED, PaymentStatus.VOIDED):
            raise failed_precondition("NOT_CAPTURED", "Nothing was charged for this order.")
        if self.locked:
            raise failed_precondition(
                "PAYMENT_DISPUTED", "Nothing can go back while the payment is disputed."
            )
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
        self._restate(now)
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

    def keep(self, refund: Refund, now: datetime) -> list[Payload]:
        """The provider refused `refund`: its amount may be asked back again."""
        refund.settle(RefundStatus.FAILED, now)
        self.refunding -= refund.amount.amount
        self.updated_at = now
        return []

    def refunded_at_the_provider(
        self, refund_id: str, provider_id: str, amount: Money, now: datetime
    ) -> Refund:
        """Set `amount` aside for a refund that somebody made at the provider; `give_back` or `keep` follow."""
        self.refunding += amount.amount
        self.updated_at = now
        reason = MADE_AT_THE_PROVIDER
        return Refund(refund_id, self.id, self.order_id, amount, reason, now, now, provider_id=provider_id)

    def follow(self, refund: Refund, status: RefundStatus, now: datetime) -> list[Payload]:
        """Bring `refund` to where it stands at the provider: from PENDING anywhere, from SUCCEEDED to FAILED."""
        if status is RefundStatus.PENDING:
            return []
        if status is RefundStatus.SUCCEEDED:
            return self.give_back(refund, now)
        return (self.take_back if refund.status is RefundStatus.SUCCEEDED else self.keep)(refund, now)

    def take_back(self, refund: Refund, now: datetime) -> list[Payload]:
        """Undo `give_back`: the payer's bank sent the money back."""
        refund.settle(RefundStatus.FAILED, now)
        self.refunded -= refund.amount.amount
        self._restate(now)
        return [
            PaymentRefundFailed(
                order_id=self.order_id,
                payment_id=self.id,
                refund_id=refund.id,
                amount=refund.amount,
                refunded=self.money(self.refunded),
            )
        ]

    def dispute(self, dispute: Dispute, now: datetime) -> list[Payload]:
        """Open `dispute`: its amount is in question."""
        self.disputed += dispute.amount.amount
        self.locked += 0 if dispute.refundable else dispute.amount.amount
        self._restate(now)
        return [
            PaymentDisputed(
                order_id=self.order_id, payment_id=self.id, dispute_id=dispute.id, amount=dispute.amount
            )
        ]

    def lock(self, dispute: Dispute, now: datetime) -> list[Payload]:
        """The bank's inquiry became a dispute: the provider gives no refund any more."""
        dispute.refundable, dispute.updated_at = False, now
        self.locked += dispute.amount.amount
        self.updated_at = now
        return []

    def close_dispute(self, dispute: Dispute, outcome: DisputeStatus, now: datetime) -> list[Payload]:
        """The bank has decided; LOST, the amount is the payer's again."""
        dispute.status, dispute.updated_at = outcome, now
        self.disputed -= dispute.amount.amount
        self.locked -= 0 if dispute.refundable else dispute.amount.amount
        if outcome is DisputeStatus.LOST:
            self.charged_back += dispute.amount.amount
        self._restate(now)
        return [
            PaymentDisputeClosed(
                order_id=self.order_id,
                payment_id=self.id,
                dispute_id=dispute.id,
                amount=dispute.amount,
                outcome="LOST" if outcome is DisputeStatus.LOST else "WON",
            )
        ]

    def _restate(self, now: datetime) -> None:
        """Derive the status of a captured payment from its sums."""
        if self.disputed:
            self._become(PaymentStatus.DISPUTED, now)
        elif self.refunded + self.charged_back >= self.captured:
            whole = PaymentStatus.CHARGED_BACK if self.charged_back else PaymentStatus.REFUNDED
            self._become(whole, now)
        elif self.refunded + self.charged_back:
            self._become(PaymentStatus.PARTIALLY_REFUNDED, now)
        else:
            self._become(PaymentStatus.CAPTURED, now)

    def _become(self, status: PaymentStatus, now: datetime) -> None:
        self.status = status
        self.updated_at = now


@dataclass
class Erasure:
    """An account that was deleted (its id), kept a while so that late events bring its name back nowhere."""

    id: str
    at: datetime
    version: int = 0


@dataclass
class Reconciliation:
    """How far the provider's own news were read: all before `until` is booked. There is one."""

    id: str
    until: datetime
    version: int = 0
