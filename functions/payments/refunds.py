"""Use cases: giving money back. It is set aside first, so that no sum of refunds exceeds the charge."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from events.catalog import Money
from functions.payments import store
from functions.payments.desk import Desk
from functions.payments.domain import REQUESTED_BY_MERCHANT, Payment, Refund, RefundStatus
from functions.payments.provider import RefundOutcome
from functions.runtime.batches import each
from functions.runtime.currencies import ProviderLimits
from functions.runtime.errors import ServiceError, aborted, invalid, not_found
from functions.runtime.formats import REASON
from functions.runtime.idempotency import fingerprint, idempotency, wrong_key
from functions.runtime.identity import Identity, require_admin, require_signed_in
from functions.runtime.ids import new_id
from functions.runtime.paging import page_limit
from functions.runtime.store.port import Changes, Once, Page, Ref
from observability.failpoints import failpoint

log = logging.getLogger("shop.payments")

_REASON = re.compile(REASON)


async def refund(
    payment_id: str, amount: Money | None, reason: str, key: str | None, who: Identity, desk: Desk
) -> Refund:
    """Give back `amount` of a payment, None for all that is left; admins only.

    The refund as it stands now: PENDING when the provider did not answer, and the sweep will settle it.
    `key` is the caller's Idempotency-Key; the same one again gives the same refund.
    """
    require_admin(who)
    reason = reason or REQUESTED_BY_MERCHANT
    _check(amount, reason, key, desk.limits)
    now, fresh_id = desk.clock.now(), new_id("ref")

    def change(found: Sequence[Any]) -> Changes[Refund]:
        payment: Payment | None = found[0]
        if payment is None:
            raise not_found("Payment", "PAYMENT_NOT_FOUND")
        refund = payment.ask_back(fresh_id, amount, reason, now)
        return Changes(refund, put=[payment, refund])

    once = None if key is None else _once(who, key, payment_id, amount, reason)
    refs = [Ref(Payment, payment_id), Ref(Refund, fresh_id)]
    failpoint("payments.refund.before")
    first = await desk.store.transact(refs, change, once=once)
    failpoint("payments.refund.after")
    if first.id != fresh_id:
        await _refuse_while_handled(first.id, desk)
    return await _try_give_back(first, desk)


async def give_back(refund_id: str, once: Once | None, desk: Desk) -> Refund:
    """Have the provider pay what is set aside, and commit its answer with `once`. Raises UNAVAILABLE."""
    refund = await desk.store.get(Refund, refund_id)
    if refund is None:
        raise not_found("Refund", "REFUND_NOT_FOUND")
    if refund.status is not RefundStatus.PENDING:
        return refund
    outcome = await desk.provider.refund(refund.id, refund.payment_id, refund.amount)
    refund = await _settle(refund, outcome, once, desk)
    if refund.status is RefundStatus.FAILED:
        log.error("refund_refused", extra={"refund_id": refund.id, "order_id": refund.order_id})
    return refund


async def sweep(before: datetime, desk: Desk) -> None:
    """Settle the refunds that were asked for before `before` and never answered."""
    cursor, more = None, True
    while more:
        page = await store.pending_refunds(desk.store, before, cursor)
        await each([_try_give_back(refund, desk) for refund in page.items], log)
        cursor, more = page.next_cursor, page.next_cursor is not None


async def refunds_of(payment_id: str, limit: int, cursor: str, who: Identity, desk: Desk) -> Page[Refund]:
    """A payment's refunds, oldest first, for the payer or an admin; to others NOT_FOUND."""
    payment = await desk.store.get(Payment, payment_id)
    if payment is None:
        require_signed_in(who)
        raise not_found("Payment", "PAYMENT_NOT_FOUND")
    require_payer_or_admin(payment, who)
    return await store.refunds_of(desk.store, payment_id, page_limit(limit), cursor or None)


def require_payer_or_admin(payment: Payment, who: Identity) -> None:
    """Raises NOT_FOUND to anybody else, who must not learn that it exists."""
    require_signed_in(who)
    if not who.is_admin and (who.is_service or who.subject != payment.user_id):
        raise not_found("Payment", "PAYMENT_NOT_FOUND")


async def _settle(refund: Refund, outcome: RefundOutcome, once: Once | None, desk: Desk) -> Refund:
    now = desk.clock.now()

    def change(found: Sequence[Any]) -> Changes[Refund]:
        payment, refund = found
        if refund.status is not RefundStatus.PENDING:
            return Changes(refund)
        settle = payment.give_back if outcome is RefundOutcome.SUCCEEDED else payment.keep
        events = settle(refund, now)
        return Changes(refund, put=[payment, refund], events=events)

    refs = [Ref(Payment, refund.payment_id), Ref(Refund, refund.id)]
    failpoint("payments.refund-settle.before")
    settled = await desk.store.transact(refs, change, once=once)
    failpoint("payments.refund-settle.after")
    return settled


async def _try_give_back(refund: Refund, desk: Desk) -> Refund:
    """Settle if the provider answers; else leave it PENDING for the sweep."""
    try:
        return await give_back(refund.id, None, desk)
    except ServiceError as error:
        log.warning("refund_left_pending", extra={"refund_id": refund.id, "reason": error.reason})
        return refund


async def _refuse_while_handled(refund_id: str, desk: Desk) -> None:
    """Raises ABORTED while whoever brought this key first may still be waiting for the provider."""
    refund = await desk.store.get(Refund, refund_id)
    if refund is None or refund.status is not RefundStatus.PENDING:
        return
    if desk.clock.now() - refund.created_at < desk.settle_after:
        raise aborted(
            "IDEMPOTENCY_KEY_IN_FLIGHT", "The first request with this key is still being handled.", 1.0
        )


def _once(who: Identity, key: str, payment_id: str, amount: Money | None, reason: str) -> Once:
    wanted = f"{payment_id}|{f'{amount.amount}{amount.currency}' if amount else 'all'}|{reason}"
    return idempotency(f"refunds:{who.subject}", key, fingerprint(wanted.encode()), Refund)


def _check(amount: Money | None, reason: str, key: str | None, limits: ProviderLimits) -> None:
    wrong = [*wrong_key(key)]
    if amount is not None and amount.amount <= 0:
        wrong.append(("amount.amount", "must be more than zero"))
    if not _REASON.fullmatch(reason):
        wrong.append(("reason", "must be UPPER_SNAKE, at most 64 characters"))
    if wrong:
        raise invalid("The refund is not valid.", *wrong)
    if amount is not None and (problem := limits.refund_problem(amount)) is not None:
        part, message = problem
        violation = (f"amount.{part}", message)
        raise invalid(
            f"{limits.provider} cannot give this amount back.", violation, reason="AMOUNT_NOT_CHARGEABLE"
        )
