"""Payments and refunds."""

from __future__ import annotations

from fastapi import Request, Response

from gateway.middleware.request_context import clients_of
from gateway.models import payments as models
from gateway.responses import answer, conditional
from gateway.route_options import declare
from gateway.routes.params import Cursor, Limit, OrderId, PaymentId, idempotency_key, routes
from proto.shop.payments.v1 import payments_pb2 as pb

router = routes("payments")


@router.get(
    "/v1/orders/{order_id}/payment",
    **declare("signed-in", 200, models.Payment, tagged="read", problems={404: "PAYMENT_NOT_FOUND"}),
)
async def read_payment(request: Request, order_id: OrderId) -> Response:
    """Read the payment of an order.

    There is none before the charge was tried.
    """
    payments = clients_of(request).payments
    wanted = pb.GetOrderPaymentRequest(order_id=order_id)
    return conditional(
        request, models.payment((await payments.read(payments.stub.GetOrderPayment, wanted)).payment)
    )


@router.post(
    "/v1/payments/{payment_id}/refunds",
    **declare(
        "admin",
        201,
        models.Refund,
        headers=("idempotency-key",),
        problems={
            400: "INVALID_ARGUMENT, MALFORMED_JSON, CURRENCY_MISMATCH",
            404: "PAYMENT_NOT_FOUND",
            409: "REFUND_EXCEEDS_CAPTURED, NOT_CAPTURED, IDEMPOTENCY_KEY_IN_FLIGHT",
            422: "IDEMPOTENCY_KEY_REUSED",
        },
    ),
)
async def refund_payment(request: Request, payment_id: PaymentId, body: models.RefundIn) -> Response:
    """Give money back, in part or in whole."""
    payments = clients_of(request).payments
    wanted = pb.RefundPaymentRequest(
        payment_id=payment_id,
        amount=body.amount.to_proto() if body.amount is not None else None,
        reason=body.reason or "",
        idempotency_key=idempotency_key(request),
    )
    return answer(models.refund((await payments.write(payments.stub.RefundPayment, wanted)).refund), 201)


@router.get(
    "/v1/payments/{payment_id}/refunds",
    **declare("signed-in", 200, models.RefundPage, problems={404: "PAYMENT_NOT_FOUND"}),
)
async def list_refunds(
    request: Request, payment_id: PaymentId, limit: Limit = 20, cursor: Cursor = ""
) -> Response:
    """List the refunds of a payment, oldest first."""
    payments = clients_of(request).payments
    wanted = pb.ListRefundsRequest(payment_id=payment_id, limit=limit, cursor=cursor)
    found = await payments.read(payments.stub.ListRefunds, wanted)
    page: models.RefundPage = {
        "items": [models.refund(refund) for refund in found.refunds],
        "next_cursor": found.next_cursor or None,
    }
    return answer(page)
