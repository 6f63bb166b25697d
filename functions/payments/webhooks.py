"""Use cases: what the provider says of its own accord, of charges and refunds whose answer was lost or came late.

Nothing that it says is booked. It is taken for a hint to ask again with the same key, so that there is one way by which
money is accounted for, whoever noticed first.
"""

from __future__ import annotations

import logging

from functions.payments import refunds, service
from functions.payments.desk import Desk
from functions.payments.domain import Payment, Refund, RefundStatus
from functions.payments.provider import ProviderEvent
from functions.runtime.errors import not_found
from functions.runtime.inbox import mark
from functions.runtime.store.port import AlreadyDone, Once

log = logging.getLogger("shop.payments")


async def receive(payload: bytes, signature: str, desk: Desk) -> None:
    """Handle one call of the provider's webhook; what does not concern us is no error.

    Raises INVALID_ARGUMENT (SIGNATURE_INVALID, WEBHOOK_MALFORMED), NOT_FOUND where no webhook is configured, and
    UNAVAILABLE, on which the provider calls again.
    """
    if desk.webhook is None:
        raise not_found("Webhook", "WEBHOOK_NOT_FOUND")
    event = await desk.webhook.read(payload, signature)
    once = mark("/payment-provider", event.id)
    try:
        if event.kind == "charge":
            await _charge(event, once, desk)
        elif event.kind == "refund":
            await _refund(event, once, desk)
        elif event.kind == "dispute":
            log.warning("charge_disputed", extra=_about(event))
    except AlreadyDone:
        log.info("webhook_repeated", extra=_about(event))


async def _charge(event: ProviderEvent, once: Once, desk: Desk) -> None:
    payment = await desk.store.get(Payment, event.key) if event.key else None
    if payment is not None and payment.pending:
        await service.charge(payment.order_id, once, desk)


async def _refund(event: ProviderEvent, once: Once, desk: Desk) -> None:
    refund = await desk.store.get(Refund, event.key) if event.key else None
    if refund is None:
        log.warning("refund_made_elsewhere", extra=_about(event))
    elif refund.status is RefundStatus.PENDING:
        await refunds.give_back(refund.id, once, desk)
    elif event.failed and refund.status is RefundStatus.SUCCEEDED:
        # The payer's bank sent it back; the money is with us again, and only a person can find another way.
        log.error("refund_returned", extra={**_about(event), "order_id": refund.order_id})


def _about(event: ProviderEvent) -> dict[str, str]:
    return {
        "webhook_event": event.id,
        "webhook_type": event.type,
        "provider_id": event.provider_id,
        "reason": event.reason,
    }
