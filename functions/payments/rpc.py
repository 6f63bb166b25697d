"""The gRPC servicer of payments, which converts messages to commands and entities to messages."""

from __future__ import annotations

from typing import Any

from events.catalog import Money
from functions.payments.domain import Payment, Refund
from functions.payments.providers.port import LedgerEntry
from functions.payments.refunds import ListRefunds, RefundPayment, RefundsService
from functions.payments.service import ListLedger, ListPayments, PaymentsService
from functions.runtime.identity import ADMINS, ANYBODY, SIGNED_IN, current_caller
from functions.runtime.messages import money, optional, to_message
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
"""The access rule of each method. The use cases check ownership."""


class PaymentsServicer(payments_pb2_grpc.PaymentsServiceServicer):
    """shop.payments.v1.PaymentsService. payments.proto describes the methods."""

    def __init__(self, payments: PaymentsService, refunds: RefundsService) -> None:
        self._payments = payments
        self._refunds = refunds

    async def GetOrderPayment(self, request: pb.GetOrderPaymentRequest, context: Any) -> pb.GetOrderPaymentResponse:
        payment = await self._payments.get_order_payment(request.order_id, current_caller())
        return pb.GetOrderPaymentResponse(payment=_payment(payment))

    async def BatchGetPayments(self, request: pb.BatchGetPaymentsRequest, context: Any) -> pb.BatchGetPaymentsResponse:
        payments = await self._payments.batch_get(request.payment_ids, current_caller())
        return pb.BatchGetPaymentsResponse(payments=map(_payment, payments))

    async def ListPayments(self, request: pb.ListPaymentsRequest, context: Any) -> pb.ListPaymentsResponse:
        query = ListPayments(request.user_id, request.limit, request.cursor)
        page = await self._payments.list_payments(query, current_caller())
        return pb.ListPaymentsResponse(payments=map(_payment, page.items), next_cursor=page.next_cursor or "")

    async def RefundPayment(self, request: pb.RefundPaymentRequest, context: Any) -> pb.RefundPaymentResponse:
        amount = optional(request, "amount", Money)
        key = optional(request, "idempotency_key")
        command = RefundPayment(request.payment_id, amount, request.reason, key)
        return pb.RefundPaymentResponse(refund=_refund(await self._refunds.refund(command, current_caller())))

    async def ListRefunds(self, request: pb.ListRefundsRequest, context: Any) -> pb.ListRefundsResponse:
        query = ListRefunds(request.payment_id, request.limit, request.cursor)
        page = await self._refunds.list_refunds(query, current_caller())
        return pb.ListRefundsResponse(refunds=map(_refund, page.items), next_cursor=page.next_cursor or "")

    async def ListLedger(self, request: pb.ListLedgerRequest, context: Any) -> pb.ListLedgerResponse:
        query = ListLedger(request.limit, request.cursor)
        page = await self._payments.list_ledger(query, current_caller())
        return pb.ListLedgerResponse(entries=map(_entry, page.items), next_cursor=page.next_cursor or "")

    async def ReceiveWebhook(self, request: pb.ReceiveWebhookRequest, context: Any) -> pb.ReceiveWebhookResponse:
        await self._payments.receive_webhook(request.payload, request.signature)
        return pb.ReceiveWebhookResponse()


def _payment(payment: Payment) -> pb.Payment:
    sums = dict.fromkeys(("captured", "refunded", "disputed", "charged_back"))
    if payment.amount:
        sums = {name: money(payment.money(getattr(payment, name))) for name in sums}
    return to_message(pb.Payment, payment, **sums)


def _refund(refund: Refund) -> pb.Refund:
    return to_message(pb.Refund, refund)


def _entry(entry: LedgerEntry) -> pb.LedgerEntry:
    return to_message(pb.LedgerEntry, entry, key=entry.id)
