"""The gRPC door: proto to use case and back."""

from __future__ import annotations

from typing import Any

from events.catalog import Money
from functions.payments import refunds, service, webhooks
from functions.payments.desk import Desk
from functions.payments.domain import Payment, Refund
from functions.payments.provider import LedgerEntry
from functions.runtime.access import ADMINS, ANYBODY, SIGNED_IN
from functions.runtime.identity import current_caller
from functions.runtime.messages import money, timestamp
from proto.shop.payments.v1 import payments_pb2 as pb
from proto.shop.payments.v1 import payments_pb2_grpc

ACCESS = {
    "GetOrderPayment": SIGNED_IN,
    "BatchGetPayments": ADMINS,
    "ListPayments": SIGNED_IN,
    "RefundPayment": ADMINS,
    "ListRefunds": SIGNED_IN,
    "ListLedger": ADMINS,
    "ReceiveWebhook": ANYBODY,
}
"""Who may call; the use cases ask for more."""


class Payments(payments_pb2_grpc.PaymentsServiceServicer):
    """See payments.proto."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetOrderPayment(
        self, request: pb.GetOrderPaymentRequest, context: Any
    ) -> pb.GetOrderPaymentResponse:
        """See payments.proto."""
        return pb.GetOrderPaymentResponse(
            payment=_payment(await service.order_payment(request.order_id, current_caller(), self._desk))
        )

    async def BatchGetPayments(
        self, request: pb.BatchGetPaymentsRequest, context: Any
    ) -> pb.BatchGetPaymentsResponse:
        """See payments.proto."""
        payments = await service.payments_by_id(request.payment_ids, current_caller(), self._desk)
        return pb.BatchGetPaymentsResponse(payments=map(_payment, payments))

    async def ListPayments(self, request: pb.ListPaymentsRequest, context: Any) -> pb.ListPaymentsResponse:
        """See payments.proto."""
        payments, cursor = await service.payments_of(
            request.user_id, request.limit, request.cursor, current_caller(), self._desk
        )
        return pb.ListPaymentsResponse(payments=map(_payment, payments), next_cursor=cursor or "")

    async def RefundPayment(self, request: pb.RefundPaymentRequest, context: Any) -> pb.RefundPaymentResponse:
        """See payments.proto."""
        amount = Money(request.amount.amount, request.amount.currency) if request.HasField("amount") else None
        key = request.idempotency_key if request.HasField("idempotency_key") else None
        refund = await refunds.refund(
            request.payment_id, amount, request.reason, key, current_caller(), self._desk
        )
        return pb.RefundPaymentResponse(refund=_refund(refund))

    async def ListRefunds(self, request: pb.ListRefundsRequest, context: Any) -> pb.ListRefundsResponse:
        """See payments.proto."""
        page = await refunds.refunds_of(
            request.payment_id, request.limit, request.cursor, current_caller(), self._desk
        )
        return pb.ListRefundsResponse(refunds=map(_refund, page.items), next_cursor=page.next_cursor or "")

    async def ListLedger(self, request: pb.ListLedgerRequest, context: Any) -> pb.ListLedgerResponse:
        """See payments.proto."""
        page = await service.ledger(request.limit, request.cursor, current_caller(), self._desk)
        return pb.ListLedgerResponse(entries=map(_entry, page.items), next_cursor=page.next_cursor or "")

    async def ReceiveWebhook(
        self, request: pb.ReceiveWebhookRequest, context: Any
    ) -> pb.ReceiveWebhookResponse:
        """See payments.proto."""
        await webhooks.receive(request.payload, request.signature, self._desk)
        return pb.ReceiveWebhookResponse()


def _payment(payment: Payment) -> pb.Payment:
    return pb.Payment(
        id=payment.id,
        order_id=payment.order_id,
        user_id=payment.user_id,
        status=pb.PaymentStatus.Value(f"PAYMENT_STATUS_{payment.status}"),
        amount=money(payment.amount) if payment.amount else None,
        captured=money(payment.money(payment.captured)) if payment.amount else None,
        refunded=money(payment.money(payment.refunded)) if payment.amount else None,
        disputed=money(payment.money(payment.disputed)) if payment.amount else None,
        charged_back=money(payment.money(payment.charged_back)) if payment.amount else None,
        reason=payment.reason,
        created_at=timestamp(payment.created_at),
        updated_at=timestamp(payment.updated_at),
        version=payment.version,
    )


def _refund(refund: Refund) -> pb.Refund:
    return pb.Refund(
        id=refund.id,
        payment_id=refund.payment_id,
        amount=money(refund.amount),
        status=pb.RefundStatus.Value(f"REFUND_STATUS_{refund.status}"),
        reason=refund.reason,
        created_at=timestamp(refund.created_at),
    )


def _entry(entry: LedgerEntry) -> pb.LedgerEntry:
    return pb.LedgerEntry(
        key=entry.id,
        kind=entry.kind,
        payment_id=entry.payment_id,
        amount=money(entry.amount),
        outcome=entry.outcome,
        at=timestamp(entry.at),
    )
