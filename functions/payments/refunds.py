"""Use cases: giving money back, and booking what went back, or is disputed, at the provider itself.

A refund is set aside first, so that no sum of refunds exceeds the charge. What people do on the provider's own pages,
and what the payer's bank does, is read from the provider's statement of the charge: whoever notices it first, a
webhook, the sweep or a refund that is refused, calls `reconcile`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from events.catalog import Money, Payload
from functions.payments import store
from functions.payments.desk import Desk
from functions.payments.domain import (
    ORDER_CANCELLED,
    REQUESTED_BY_MERCHANT,
    Dispute,
    DisputeStatus,
    Payment,
    Reconciliation,
    Refund,
    RefundStatus,
    cancellation_refund_id,
    id_of_provider,
)
from functions.payments.provider import DisputeRecord, RefundOutcome, RefundRecord, RefundState
from functions.runtime.concurrency import gather_logged
from functions.runtime.currencies import ProviderLimits
from functions.runtime.errors import ServiceError, aborted, invalid, not_found
from functions.runtime.formats import REASON
from functions.runtime.idempotency import fingerprint, idempotency_record, wrong_key
from functions.runtime.identity import Identity, require_admin, require_signed_in
from functions.runtime.ids import new_id
from functions.runtime.paging import page_limit
from functions.runtime.store.port import Changes, IdempotencyRecord, Page, Ref
from observability.failpoints import failpoint

log = logging.getLogger("shop.payments")

CANCELLATION_ATTEMPTS = 4
WINDOW = timedelta(days=1)
"""So much of the provider's news is read, and marked as read, at once."""
FIRST_LOOK = timedelta(days=30)
"""So far the first reconciliation looks back: Stripe keeps its events for as long."""
OVERLAP = timedelta(minutes=5)
_READ = "provider"
_REASON = re.compile(REASON)


async def refund(
    payment_id: str, amount: Money | None, reason: str, key: str | None, caller: Identity, desk: Desk
) -> Refund:
    """Give back `amount` of a payment, None for all that is left; admins only.

    The refund as it stands now: PENDING when the provider did not answer, and the sweep will settle it.
    `key` is the caller's Idempotency-Key; the same one again gives the same refund.
    """
    require_admin(caller)
    reason = reason or REQUESTED_BY_MERCHANT
    _check(amount, reason, key, desk.limits)
    now, fresh_id = desk.clock.now(), new_id("ref")

    def change(found: Sequence[Any]) -> Changes[Refund]:
        payment: Payment | None = found[0]
        if payment is None:
            raise not_found("Payment", "PAYMENT_NOT_FOUND")
        refund = payment.ask_back(fresh_id, amount, reason, now)
        return Changes(refund, put=[payment, refund])

    idempotency = None if key is None else _once(caller, key, payment_id, amount, reason)
    refs = [Ref(Payment, payment_id), Ref(Refund, fresh_id)]
    failpoint("payments.refund.before")
    first = await desk.store.transact(refs, change, idempotency=idempotency)
    failpoint("payments.refund.after")
    if first.id != fresh_id:
        await _refuse_while_handled(first.id, desk)
    return await _try_give_back(first, desk)


async def give_back(refund_id: str, idempotency: IdempotencyRecord | None, desk: Desk) -> Refund:
    """Have the provider pay what is set aside, and commit its answer with `idempotency`. Raises UNAVAILABLE."""
    refund = await desk.store.get(Refund, refund_id)
    if refund is None:
        raise not_found("Refund", "REFUND_NOT_FOUND")
    if refund.status is not RefundStatus.PENDING:
        return refund
    if refund.provider_id:
        await reconcile(refund.payment_id, desk)
        return await desk.store.get(Refund, refund_id) or refund
    outcome = await desk.provider.refund(refund.id, refund.payment_id, refund.amount)
    refund = await _settle(refund, outcome, idempotency, desk)
    if refund.status is RefundStatus.FAILED:
        log.error("refund_refused", extra={"refund_id": refund.id, "order_id": refund.order_id})
        await try_to_reconcile(refund.payment_id, desk)
    return refund


async def reconcile(payment_id: str, desk: Desk) -> None:
    """Book what the provider's statement has of a charge and we have not: refunds, disputes, and what became of them.

    What a cancelled order is still due goes back then. Repeatable. Raises UNAVAILABLE.
    """
    payment = await desk.store.get(Payment, payment_id)
    if payment is None or payment.captured == 0:
        return
    statement = await desk.provider.statement(payment_id)
    news = [await _book_refund(payment, record, desk) for record in statement.refunds]
    news += [await _book_dispute(payment, record, desk) for record in statement.disputes]
    if any(news):
        await refund_cancelled(payment_id, desk)


async def try_to_reconcile(payment_id: str, desk: Desk) -> None:
    """Reconcile if the provider answers; else the sweep will."""
    try:
        await reconcile(payment_id, desk)
    except ServiceError as error:
        log.warning("not_reconciled", extra={"payment_id": payment_id, "reason": error.reason})


async def refund_cancelled(payment_id: str, desk: Desk) -> None:
    """Give back what is left of a cancelled order's payment, in a new attempt where an earlier one was refused."""
    now = desk.clock.now()
    order_id = "ord_" + payment_id[4:]
    ids = [cancellation_refund_id(order_id, attempt) for attempt in range(CANCELLATION_ATTEMPTS)]

    def change(found: Sequence[Any]) -> Changes[Refund | None]:
        payment, *attempts = found
        free = next((ids[at] for at, refund in enumerate(attempts) if refund is None), None)
        pending = any(refund and refund.status is RefundStatus.PENDING for refund in attempts)
        if not payment.void_requested or pending or free is None or payment.left == 0:
            return Changes(None)
        refund = payment.ask_back(free, None, ORDER_CANCELLED, now)
        return Changes(refund, put=[payment, refund])

    refund = await desk.store.transact(
        [Ref(Payment, payment_id), *(Ref(Refund, refund_id) for refund_id in ids)], change
    )
    if refund is not None:
        await _try_give_back(refund, desk)


async def book_news(desk: Desk) -> None:
    """Reconcile every charge that moved at the provider since the last time. Raises UNAVAILABLE."""
    now = desk.clock.now()
    known = await desk.store.get(Reconciliation, _READ)
    since = known.until if known else now - FIRST_LOOK
    while since < now:
        until = min(now, since + WINDOW)
        changed = await desk.provider.changed(since, until)
        for payment_id in changed:
            await reconcile(payment_id, desk)
        # What the provider lists late, it lists within the overlap.
        since = until if until < now else max(since, now - OVERLAP)
        await desk.store.update(Reconciliation, _READ, partial(_read, until=since))
        if until == now:
            break


async def _book_refund(payment: Payment, record: RefundRecord, desk: Desk) -> bool:
    """Book a refund as the provider has it; whether that changes what can be given back."""
    ours = await desk.store.get(Refund, record.key) if record.key else None
    if ours is not None and ours.payment_id == payment.id:
        if ours.status is RefundStatus.PENDING and record.state is not RefundState.PENDING:
            await give_back(ours.id, None, desk)
            return False
        refund_id = ours.id
    else:
        ours, refund_id = None, id_of_provider("ref", record.provider_id)
    now = desk.clock.now()

    def change(found: Sequence[Any]) -> Changes[str]:
        payment, refund = found
        if refund is None:
            if record.state is RefundState.FAILED:
                return Changes("")
            refund = payment.refunded_at_the_provider(refund_id, record.provider_id, record.amount, now)
        elif refund.status == record.state or refund.status is RefundStatus.FAILED:
            return Changes("")
        returned = refund.status is RefundStatus.SUCCEEDED
        events = payment.follow(refund, RefundStatus(record.state), now)
        return Changes("returned" if returned else "booked", put=[payment, refund], events=events)

    done = await desk.store.transact([Ref(Payment, payment.id), Ref(Refund, refund_id)], change)
    about = {"order_id": payment.order_id, "refund_id": refund_id, "provider_id": record.provider_id}
    if done == "returned":
        # The payer's bank sent it back; the money is with us again, and only a person can find another way.
        log.error("refund_returned", extra=about)
    elif done:
        log.warning("refund_made_elsewhere", extra=about)
    return done == "booked"


async def _book_dispute(payment: Payment, record: DisputeRecord, desk: Desk) -> bool:
    """Book a dispute as the provider has it; whether it is closed by that."""
    dispute_id, status = id_of_provider("dsp", record.provider_id), DisputeStatus(record.state)
    now = desk.clock.now()

    def change(found: Sequence[Any]) -> Changes[str]:
        payment, dispute = found
        events: list[Payload] = []
        if dispute is None:
            dispute = Dispute(
                dispute_id,
                payment.id,
                payment.order_id,
                record.amount,
                record.reason,
                record.refundable,
                now,
                now,
            )
            events += payment.dispute(dispute, now)
        elif dispute.status is not DisputeStatus.OPEN:
            return Changes("")
        if status is not DisputeStatus.OPEN:
            events += payment.close_dispute(dispute, status, now)
        elif dispute.refundable and not record.refundable:
            events += payment.lock(dispute, now)
        elif not events:
            return Changes("")
        return Changes(dispute.status.value, put=[payment, dispute], events=events)

    done = await desk.store.transact([Ref(Payment, payment.id), Ref(Dispute, dispute_id)], change)
    if done:
        extra = {"order_id": payment.order_id, "provider_id": record.provider_id, "status": done}
        log.warning("charge_disputed", extra={**extra, "reason": record.reason})
    return done in (DisputeStatus.WON, DisputeStatus.LOST)


def _read(found: Reconciliation | None, until: datetime) -> tuple[Reconciliation, Sequence[Payload]]:
    read = found or Reconciliation(_READ, until)
    read.until = max(read.until, until)
    return read, ()


async def sweep(before: datetime, desk: Desk) -> None:
    """Settle the refunds that were asked for before `before` and never answered."""
    cursor, more = None, True
    while more:
        page = await store.pending_refunds(desk.store, before, cursor)
        await gather_logged([_try_give_back(refund, desk) for refund in page.items], log)
        cursor, more = page.next_cursor, page.next_cursor is not None


async def refunds_of(payment_id: str, limit: int, cursor: str, caller: Identity, desk: Desk) -> Page[Refund]:
    """A payment's refunds, oldest first, for the payer or an admin; to others NOT_FOUND."""
    payment = await desk.store.get(Payment, payment_id)
    if payment is None:
        require_signed_in(caller)
        raise not_found("Payment", "PAYMENT_NOT_FOUND")
    require_payer_or_admin(payment, caller)
    return await store.refunds_of(desk.store, payment_id, page_limit(limit), cursor or None)


def require_payer_or_admin(payment: Payment, caller: Identity) -> None:
    """Raises NOT_FOUND to anybody else, who must not learn that it exists."""
    require_signed_in(caller)
    if not caller.is_admin and (caller.is_service or caller.subject != payment.user_id):
        raise not_found("Payment", "PAYMENT_NOT_FOUND")


async def _settle(
    refund: Refund, outcome: RefundOutcome, idempotency: IdempotencyRecord | None, desk: Desk
) -> Refund:
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
    settled = await desk.store.transact(refs, change, idempotency=idempotency)
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


def _once(
    caller: Identity, key: str, payment_id: str, amount: Money | None, reason: str
) -> IdempotencyRecord:
    wanted = f"{payment_id}|{f'{amount.amount}{amount.currency}' if amount else 'all'}|{reason}"
    return idempotency_record(f"refunds:{caller.subject}", key, fingerprint(wanted.encode()), Refund)


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
