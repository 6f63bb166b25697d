"""What Stripe says of its own accord, checked and put into our words."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from functions.payments.provider import ProviderEvent
from functions.payments.stripe_api import KEY
from functions.runtime.errors import ServiceError, invalid

TOLERANCE = 300
"""Seconds that a signature holds, against replays."""
# A charge object tells of refunds (charge.refunded); what it says of the charge itself, the intent says as well.
_KINDS = {"payment_intent": "charge", "refund": "refund", "charge": "refund", "dispute": "dispute"}


class _Thing(msgspec.Struct):
    object: str = ""
    id: str = ""
    payment_intent: Any = None
    reason: str | None = None
    metadata: dict[str, Any] | None = None


class _Data(msgspec.Struct):
    object: _Thing


class _Event(msgspec.Struct):
    id: str
    type: str
    data: _Data


class StripeWebhook:
    """See Webhook; `secret` is the endpoint's, `whsec_...`."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def read(self, payload: bytes, signature: str) -> ProviderEvent:
        """See Webhook."""
        await asyncio.to_thread(self._check, payload, signature)
        try:
            event = msgspec.json.decode(payload, type=_Event)
        except msgspec.MsgspecError:
            raise invalid("This is no event of Stripe's.", reason="WEBHOOK_MALFORMED") from None
        thing = event.data.object
        return ProviderEvent(
            id=event.id,
            type=event.type,
            kind=_KINDS.get(thing.object, ""),
            key=str((thing.metadata or {}).get(KEY, "")),
            provider_id=thing.id,
            charge_id=thing.payment_intent if isinstance(thing.payment_intent, str) else "",
            reason=thing.reason or "",
        )

    def _check(self, payload: bytes, signature: str) -> None:
        import stripe  # in a thread, for its import takes 0.2 s

        if not signature.isascii():  # the library's comparison would stumble over it
            raise _unsigned()
        try:
            stripe.WebhookSignature.verify_header(payload, signature, self._secret, TOLERANCE)
        except (stripe.SignatureVerificationError, UnicodeDecodeError):
            raise _unsigned() from None


def _unsigned() -> ServiceError:
    return invalid("The signature is not valid.", reason="SIGNATURE_INVALID")
