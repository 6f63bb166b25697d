"""Routes of payments and refunds."""

from __future__ import annotations

from gateway import api_errors as errors
from gateway.dependencies import PaymentsClient
from gateway.models import payments as models
from gateway.models.common import view
from gateway.routes.parameters import Cursor, IdempotencyKey, Limit, OrderId, PaymentId
from gateway.routing import Access, ApiRouter
from proto.shop.payments.v1 import payments_pb2 as pb

router = ApiRouter("payments")


@router.get("/v1/orders/{order_id}/payment", access=Access.SIGNED_IN, errors=[errors.PAYMENT_NOT_FOUND], etag=True)
async def read_payment(order_id: OrderId, payments: PaymentsClient) -> models.Payment:
    """Read the payment of an order.

    The response is 404 until the charge has been requested.
    """
    query = pb.GetOrderPaymentRequest(order_id=order_id)
    return models.payment((await payments.read(payments.stub.GetOrderPayment, query)).payment)


@router.post(
    "/v1/payments/{payment_id}/refunds",
    access=Access.ADMIN,
    status_code=201,
    errors=[
        errors.CURRENCY_MISMATCH,
        errors.PAYMENT_NOT_FOUND,
        errors.REFUND_EXCEEDS_CAPTURED,
        errors.NOT_CAPTURED,
        errors.IDEMPOTENCY_KEY_IN_FLIGHT,
        errors.IDEMPOTENCY_KEY_REUSED,
    ],
)
async def refund_payment(
    payment_id: PaymentId, body: models.RefundIn, payments: PaymentsClient, idempotency_key: IdempotencyKey = None
) -> models.Refund:
    """Refund a payment, in full or in part."""
    command = pb.RefundPaymentRequest(
        payment_id=payment_id,
        amount=body.amount.to_proto() if body.amount is not None else None,
        reason=body.reason or "",
        idempotency_key=idempotency_key,
    )
    return view(models.Refund, (await payments.write(payments.stub.RefundPayment, command)).refund)


@router.get("/v1/payments/{payment_id}/refunds", access=Access.SIGNED_IN, errors=[errors.PAYMENT_NOT_FOUND])
async def list_refunds(
    payment_id: PaymentId, payments: PaymentsClient, limit: Limit = 20, cursor: Cursor = ""
) -> models.RefundPage:
    """List the refunds of a payment, oldest first."""
    query = pb.ListRefundsRequest(payment_id=payment_id, limit=limit, cursor=cursor)
    found = await payments.read(payments.stub.ListRefunds, query)
    return {
        "items": [view(models.Refund, refund) for refund in found.refunds],
        "next_cursor": found.next_cursor or None,
    }
