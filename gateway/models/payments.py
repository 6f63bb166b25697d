"""Requests and responses about payments, refunds and the ledger of the payment provider."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.models.common import Body, Moment, Money, MoneyIn, NextCursor, Reason, Version, identifier, view
from proto.shop.payments.v1 import payments_pb2 as pb

PaymentStatus = TypeAliasType(
    "PaymentStatus",
    Annotated[
        Literal[
            "PENDING", "CAPTURED", "DECLINED", "VOIDED", "PARTIALLY_REFUNDED", "REFUNDED", "DISPUTED", "CHARGED_BACK"
        ],
        Field(description="Status of the payment."),
    ],
)
RefundStatus = TypeAliasType(
    "RefundStatus", Annotated[Literal["PENDING", "SUCCEEDED", "FAILED"], Field(description="Status of the refund.")]
)


class RefundIn(Body):
    """A new refund."""

    amount: Annotated[MoneyIn | None, Field(description="If absent, all that is left is refunded.")] = None
    reason: Reason | None = None


class Payment(TypedDict):
    """The payment of an order."""

    id: Annotated[str, identifier("pay", "The payment")]
    order_id: Annotated[str, identifier("ord", "Which order")]
    user_id: Annotated[str, identifier("usr", "The payer; empty once the account is deleted")]
    status: PaymentStatus
    amount: Annotated[Money, Field(description="The order's total.")]
    captured: Annotated[Money, Field(description="Charged amount.")]
    refunded: Annotated[Money, Field(description="Refunded amount.")]
    disputed: Annotated[Money, Field(description="Amount that the payer's bank disputes at present.")]
    charged_back: Annotated[Money, Field(description="Amount lost in disputes.")]
    reason: Annotated[str, Field(description="The reason of a decline; otherwise empty.", examples=[""])]
    created_at: Moment
    updated_at: Moment
    version: Version


class Refund(TypedDict):
    """A refund of a payment."""

    id: Annotated[str, identifier("ref", "The refund")]
    payment_id: Annotated[str, identifier("pay", "Of which payment")]
    amount: Money
    status: RefundStatus
    reason: Annotated[str, Field(description="In UPPER_SNAKE.", examples=["REQUESTED_BY_MERCHANT"])]
    created_at: Moment


class RefundPage(TypedDict):
    """Refunds, oldest first."""

    items: list[Refund]
    next_cursor: NextCursor


class LedgerEntry(TypedDict):
    """One movement of money at the payment provider."""

    key: Annotated[str, Field(description="Idempotency key of the operation.", examples=["charge:ord_1"])]
    kind: Annotated[str, Field(description="`charge`, `refund` or `dispute`.", examples=["charge"])]
    payment_id: Annotated[str, identifier("pay", "Of which payment")]
    amount: Annotated[Money, Field(description="Amount that moved; zero if the operation was refused.")]
    outcome: Annotated[str, Field(description="`succeeded`, or the reason of the refusal.", examples=["succeeded"])]
    at: Moment


class LedgerPage(TypedDict):
    """Movements of money, oldest first."""

    items: list[LedgerEntry]
    next_cursor: NextCursor


def payment(message: pb.Payment) -> Payment:
    """Return a payment as the API shows it."""
    names, currency = ("captured", "refunded", "disputed", "charged_back"), message.amount.currency
    sums = {name: {"amount": getattr(message, name).amount, "currency": currency} for name in names}
    return view(Payment, message, **sums)
