"""Stripe's webhook, which verifies the signature of an event and parses the event."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from functions.payments.providers.port import ProviderEvent
from functions.payments.providers.stripe_api import KEY
from functions.runtime.errors import ServiceError, invalid

TOLERANCE = 300
"""Seconds for which a signature is valid. The limit prevents replays."""
# Events with a charge object are about refunds (charge.refunded). Changes of a charge itself are events of its intent.
_KINDS = {"payment_intent": "charge", "refund": "refund", "charge": "refund", "dispute": "dispute"}


class _Object(msgspec.Struct):
    object: str = ""
    id: str = ""
    payment_intent: Any = None
    reason: str | None = None
    metadata: dict[str, Any] | None = None


class _Data(msgspec.Struct):
    object: _Object


class _Event(msgspec.Struct):
    id: str
    type: str
    data: _Data


class StripeWebhook:
    """See Webhook. `secret` is the endpoint's signing secret, `whsec_...`."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def parse(self, payload: bytes, signature: str) -> ProviderEvent:
        await asyncio.to_thread(self._verify, payload, signature)
        try:
            event = msgspec.json.decode(payload, type=_Event)
        except msgspec.MsgspecError:
            raise invalid("The payload is not an event of Stripe.", reason="WEBHOOK_MALFORMED") from None
        obj = event.data.object
        return ProviderEvent(
            id=event.id,
            type=event.type,
            kind=_KINDS.get(obj.object, ""),
            key=str((obj.metadata or {}).get(KEY, "")),
            provider_id=obj.id,
            charge_id=obj.payment_intent if isinstance(obj.payment_intent, str) else "",
            reason=obj.reason or "",
        )

    def _verify(self, payload: bytes, signature: str) -> None:
        import stripe  # this runs in a thread, since the import takes 0.2 s

        if not signature.isascii():  # the library's comparison would raise an exception
            raise _signature_invalid()
        try:
            stripe.WebhookSignature.verify_header(payload, signature, self._secret, TOLERANCE)
        except (stripe.SignatureVerificationError, UnicodeDecodeError):
            raise _signature_invalid() from None


def _signature_invalid() -> ServiceError:
    return invalid("The signature is not valid.", reason="SIGNATURE_INVALID")
