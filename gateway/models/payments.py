"""Payments, refunds and the ledger of the payment provider."""

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
        Field(description="Where a payment stands."),
    ],
)
RefundStatus = TypeAliasType(
    "RefundStatus", Annotated[Literal["PENDING", "SUCCEEDED", "FAILED"], Field(description="Where a refund stands.")]
)


class RefundIn(Body):
    """A new refund."""

    amount: Annotated[MoneyIn | None, Field(description="Absent: all that is left.")] = None
    reason: Reason | None = None


class Payment(TypedDict):
    """The payment of an order."""

    id: Annotated[str, identifier("pay", "The payment")]
    order_id: Annotated[str, identifier("ord", "Which order")]
    user_id: Annotated[str, identifier("usr", "Who pays; empty once the account is deleted")]
    status: PaymentStatus
    amount: Annotated[Money, Field(description="What the order costs.")]
    captured: Annotated[Money, Field(description="What was charged.")]
    refunded: Annotated[Money, Field(description="What went back of it.")]
    disputed: Annotated[Money, Field(description="What the payer's bank disputes at present.")]
    charged_back: Annotated[Money, Field(description="What lost disputes took back.")]
    reason: Annotated[str, Field(description="Why it was declined; else empty.", examples=[""])]
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

    key: Annotated[str, Field(description="Its idempotency key.", examples=["charge:ord_1"])]
    kind: Annotated[str, Field(description="`charge`, `refund` or `dispute`.", examples=["charge"])]
    payment_id: Annotated[str, identifier("pay", "Of which payment")]
    amount: Annotated[Money, Field(description="How much moved; zero for what was refused.")]
    outcome: Annotated[str, Field(description="`succeeded`, or why not.", examples=["succeeded"])]
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
