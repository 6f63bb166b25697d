"""What providers report of their own accord: passed on as it came, to the domain that knows who may say it."""

from __future__ import annotations

from fastapi import Request, Response

from gateway.middleware.request_context import clients_of
from gateway.request_body import too_large
from gateway.responses import empty
from gateway.route_options import declare
from gateway.routes.params import routes
from proto.shop.notifications.v1 import notifications_pb2
from proto.shop.payments.v1 import payments_pb2

MAX_BYTES = 256 * 1024

router = routes("webhooks")


@router.post(
    "/v1/webhooks/stripe",
    **declare(
        "open",
        204,
        headers=("stripe-signature",),
        problems={
            400: "SIGNATURE_INVALID, WEBHOOK_MALFORMED, MALFORMED_JSON",
            404: "WEBHOOK_NOT_FOUND",
            503: "PAYMENT_PROVIDER_UNAVAILABLE, SERVICE_UNAVAILABLE",
        },
        body={
            "id": "evt_1NG8Du2eZvKYlo2CUI79vXWy",
            "object": "event",
            "type": "payment_intent.succeeded",
            "data": {"object": {"id": "pi_1", "object": "payment_intent", "metadata": {"shop_key": "pay_1"}}},
        },
    ),
)
async def receive_stripe(request: Request) -> Response:
    """Take an event of Stripe's.

    What does not concern the shop is taken too. Any other status than 204 asks Stripe to send it again.
    """
    payments = clients_of(request).payments
    wanted = payments_pb2.ReceiveWebhookRequest(
        payload=await _payload(request), signature=request.headers.get("stripe-signature", "")
    )
    await payments.read(payments.stub.ReceiveWebhook, wanted)
    return empty()


@router.post(
    "/v1/webhooks/ses",
    **declare(
        "open",
        204,
        headers=("x-api-key",),
        problems={
            400: "WEBHOOK_MALFORMED, MALFORMED_JSON",
            401: "SECRET_INVALID",
            404: "WEBHOOK_NOT_FOUND",
        },
        body={
            "id": "7bf73129-1428-4cd3-a780-95db273d1602",
            "detail-type": "Email Bounced",
            "detail": {
                "eventType": "Bounce",
                "bounce": {"bounceType": "Permanent"},
                "mail": {"tags": {"notification_id": ["ntf_0190b5a4c1de7c0f8a31d94e5b7c2f60"]}},
            },
        },
    ),
)
async def receive_ses(request: Request) -> Response:
    """Take an event of Amazon SES, as Amazon EventBridge posts it: a bounce or a complaint.

    What does not concern the shop is taken too.
    """
    notifications = clients_of(request).notifications
    wanted = notifications_pb2.ReceiveMailEventRequest(
        payload=await _payload(request), secret=request.headers.get("x-api-key", "")
    )
    await notifications.read(notifications.stub.ReceiveMailEvent, wanted)
    return empty()


async def _payload(request: Request) -> bytes:
    payload = await request.body()
    if len(payload) > MAX_BYTES:
        raise too_large(MAX_BYTES)
    return payload
