"""Use cases: what the provider says of its own accord, of charges whose answer was lost, of refunds and of disputes.

Nothing that it says is booked. It is taken for a hint to ask again with the same key, so that there is one way by which
money is accounted for, whoever noticed first.
"""

from __future__ import annotations

import logging

from functions.payments import refunds, service
from functions.payments.desk import Desk
from functions.payments.domain import Payment
from functions.payments.provider import ProviderEvent
from functions.runtime.errors import not_found
from functions.runtime.inbox import inbox_record
from functions.runtime.store.port import AlreadyDone, Changes, IdempotencyRecord

log = logging.getLogger("shop.payments")


async def receive(payload: bytes, signature: str, desk: Desk) -> None:
    """Handle one call of the provider's webhook; what does not concern us is no error.

    Raises INVALID_ARGUMENT (SIGNATURE_INVALID, WEBHOOK_MALFORMED), NOT_FOUND where no webhook is configured, and
    UNAVAILABLE, on which the provider calls again.
    """
    if desk.webhook is None:
        raise not_found("Webhook", "WEBHOOK_NOT_FOUND")
    event = await desk.webhook.read(payload, signature)
    idempotency = inbox_record("/payment-provider", event.id, desk.clock.now())
    try:
        if event.kind == "charge":
            await _charge(event, idempotency, desk)
        elif event.kind in ("refund", "dispute"):
            await _moved(event, idempotency, desk)
    except AlreadyDone:
        log.info("webhook_repeated", extra=_about(event))


async def _charge(event: ProviderEvent, idempotency: IdempotencyRecord, desk: Desk) -> None:
    payment = await desk.store.get(Payment, event.key) if event.key else None
    if payment is not None and payment.pending:
        await service.charge(payment.order_id, idempotency, desk)


async def _moved(event: ProviderEvent, idempotency: IdempotencyRecord, desk: Desk) -> None:
    """A refund or a dispute was made, or moved: what became of it, the provider's statement says."""
    key = await desk.provider.charge_of(event.charge_id) if event.charge_id else ""
    payment = await desk.store.get(Payment, key) if key else None
    if payment is None:
        log.warning("webhook_of_an_unknown_charge", extra=_about(event))
        return
    if payment.pending:
        await service.charge(payment.order_id, None, desk)
    await refunds.reconcile(payment.id, desk)
    await desk.store.transact([], lambda _: Changes(None), idempotency=idempotency)


def _about(event: ProviderEvent) -> dict[str, str]:
    return {
        "webhook_event": event.id,
        "webhook_type": event.type,
        "provider_id": event.provider_id,
        "reason": event.reason,
    }
