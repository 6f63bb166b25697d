"""Webhooks of providers. Payloads are passed unparsed to the domain that can verify them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from gateway import api_errors as errors
from gateway.dependencies import NotificationsClient, PaymentsClient
from gateway.request_body import too_large
from gateway.routing import Access, ApiRouter
from proto.shop.notifications.v1 import notifications_pb2
from proto.shop.payments.v1 import payments_pb2

MAX_BYTES = 256 * 1024

router = ApiRouter("webhooks")


async def _payload(request: Request) -> bytes:
    payload = await request.body()
    if len(payload) > MAX_BYTES:
        raise too_large(MAX_BYTES)
    return payload


Payload = Annotated[bytes, Depends(_payload)]
StripeSignature = Annotated[
    str,
    Header(
        alias="Stripe-Signature",
        description="Stripe's signature of the body, not older than 5 minutes.",
        examples=["t=1893499200,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd"],
    ),
]
ApiKey = Annotated[
    str,
    Header(alias="X-Api-Key", description="The shared secret of this webhook.", examples=["a-long-random-secret"]),
]


@router.post(
    "/v1/webhooks/stripe",
    access=Access.PUBLIC,
    errors=[
        errors.SIGNATURE_INVALID,
        errors.WEBHOOK_MALFORMED,
        errors.WEBHOOK_NOT_FOUND,
        errors.PAYMENT_PROVIDER_UNAVAILABLE,
    ],
    body_example={
        "id": "evt_1NG8Du2eZvKYlo2CUI79vXWy",
        "object": "event",
        "type": "payment_intent.succeeded",
        "data": {"object": {"id": "pi_1", "object": "payment_intent", "metadata": {"shop_key": "pay_1"}}},
    },
)
async def receive_stripe(payload: Payload, payments: PaymentsClient, signature: StripeSignature = "") -> None:
    """Receive an event from Stripe.

    Events that do not concern the shop are accepted and ignored. Stripe sends an event again after any status other
    than 204.
    """
    command = payments_pb2.ReceiveWebhookRequest(payload=payload, signature=signature)
    await payments.read(payments.stub.ReceiveWebhook, command)


@router.post(
    "/v1/webhooks/ses",
    access=Access.PUBLIC,
    errors=[errors.WEBHOOK_MALFORMED, errors.SECRET_INVALID, errors.WEBHOOK_NOT_FOUND],
    body_example={
        "id": "7bf73129-1428-4cd3-a780-95db273d1602",
        "detail-type": "Email Bounced",
        "detail": {
            "eventType": "Bounce",
            "bounce": {"bounceType": "Permanent"},
            "mail": {"tags": {"notification_id": ["ntf_0190b5a4c1de7c0f8a31d94e5b7c2f60"]}},
        },
    },
)
async def receive_ses(payload: Payload, notifications: NotificationsClient, api_key: ApiKey = "") -> None:
    """Receive a bounce or complaint of Amazon SES, posted by Amazon EventBridge.

    Events that do not concern the shop are accepted and ignored.
    """
    command = notifications_pb2.ReceiveMailEventRequest(payload=payload, secret=api_key)
    await notifications.read(notifications.stub.ReceiveMailEvent, command)
