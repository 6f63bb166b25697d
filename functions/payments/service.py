"""Use cases: charging an order once, calling a charge off, erasing a person, reading.

A charge is three steps: a PENDING payment is committed, the provider is called with the payment's id as
idempotency key, the answer is committed. A crash between any two leaves a PENDING payment; a redelivery
or the sweep repeats the call, and the provider answers as it did the first time. So an order is charged
at most once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from events.catalog import ERASED_USER_ID, Payload
from functions.payments import refunds, store
from functions.payments.clients import Instruction
from functions.payments.desk import Desk
from functions.payments.domain import (
    ORDER_CANCELLED,
    Erasure,
    Payment,
    Refund,
    RefundStatus,
    cancellation_refund_id,
    payment_id,
)
from functions.payments.provider import ChargeOutcome, LedgerEntry
from functions.runtime.concurrency import gather_logged
from functions.runtime.errors import invalid, not_found
from functions.runtime.identity import Identity, require_admin, require_self_or_admin, require_signed_in
from functions.runtime.paging import page_limit
from functions.runtime.store.port import Changes, IdempotencyRecord, Page, Ref, Store
from observability.failpoints import failpoint

log = logging.getLogger("shop.payments")

MAX_BATCH = 100
PendingPages = Callable[[Store, datetime, str | None], Awaitable[Page[Payment]]]
SWEEP_SECONDS = 20.0  # within a delivery: after 30 s the broker sends the tick again


async def charge(order_id: str, idempotency: IdempotencyRecord | None, desk: Desk) -> None:
    """Charge an order whose stock is reserved; `idempotency` commits with the provider's answer.

    Raises UNAVAILABLE when orders or the provider do not answer: to be repeated.
    """
    known = await desk.store.get(Payment, payment_id(order_id))
    if known is not None and not known.pending:
        return
    if known is not None and known.void_requested:
        await _settle(known, await desk.provider.void(known.id), idempotency, desk)
        return
    instruction = await desk.orders.payment_instruction(order_id)
    payment = await _open(instruction, desk)
    if not payment.pending:
        return
    if payment.void_requested:
        outcome = await desk.provider.void(payment.id)
    elif instruction.amount.amount == 0:
        outcome = ChargeOutcome.CAPTURED  # free goods: no provider charges nothing
    else:
        outcome = await desk.provider.charge(payment.id, instruction.amount, instruction.token)
    await _settle(payment, outcome, idempotency, desk)
    if known is not None:
        # The charge may be older than its answer, and what was told of it since then found nothing to be booked on.
        await refunds.try_to_reconcile(payment.id, desk)


async def cancel(order_id: str, user_id: str, idempotency: IdempotencyRecord | None, desk: Desk) -> None:
    """The order is cancelled: nothing will be charged, what was goes back. Raises UNAVAILABLE as `charge`."""
    # Somebody may have given the money back at the provider: what is asked back then would be refused.
    await refunds.try_to_reconcile(payment_id(order_id), desk)
    payment, refund = await _call_off(order_id, user_id, desk)
    if payment.pending:
        await _settle(payment, await desk.provider.void(payment.id), idempotency, desk)
    elif refund is not None and refund.status is RefundStatus.PENDING:
        await refunds.give_back(refund.id, idempotency, desk)


async def erase(user_id: str, desk: Desk) -> None:
    """An account is deleted: payments stay, for the books, but name the person no more. Repeatable."""
    now = desk.clock.now()
    await desk.store.transact(
        [Ref(Erasure, user_id)], lambda found: Changes(None, [] if found[0] else [Erasure(user_id, now)])
    )
    while (page := await store.payments_of_user(desk.store, user_id, MAX_BATCH, None)).items:
        for payment in page.items:
            failpoint("payments.erase.before")
            await desk.store.update(Payment, payment.id, _forget_user)
            failpoint("payments.erase.after")


async def sweep(desk: Desk) -> None:
    """Take up what a crash or an outage left pending.

    Refunds and voids come before charges: a provider that lets every charge time out must not keep money from going
    back. What was done at the provider itself is booked in between.
    """
    before = desk.clock.now() - desk.settle_after
    try:
        async with asyncio.timeout(SWEEP_SECONDS):
            await refunds.sweep(before, desk)
            await _settle_pending(store.pending_voids, before, desk)
            await gather_logged([refunds.book_news(desk)], log)
            await _settle_pending(store.pending_payments, before, desk)
    except TimeoutError:
        log.warning("sweep_unfinished")


async def _settle_pending(pages: PendingPages, before: datetime, desk: Desk) -> None:
    cursor, more = None, True
    while more:
        payments = await pages(desk.store, before, cursor)
        await gather_logged([charge(payment.order_id, None, desk) for payment in payments.items], log)
        cursor, more = payments.next_cursor, payments.next_cursor is not None


async def order_payment(order_id: str, caller: Identity, desk: Desk) -> Payment:
    """An order's payment, for its owner or an admin; to others, and before a charge was tried, NOT_FOUND."""
    payment = await desk.store.get(Payment, payment_id(order_id))
    if payment is None or payment.amount is None:
        require_signed_in(caller)
        raise not_found("Payment", "PAYMENT_NOT_FOUND")
    refunds.require_payer_or_admin(payment, caller)
    return payment


async def payments_by_id(ids: Sequence[str], caller: Identity, desk: Desk) -> list[Payment]:
    """Those of up to 100 payments that exist; admins only."""
    require_admin(caller)
    if not 1 <= len(ids) <= MAX_BATCH:
        raise invalid("Ask for 1 to 100 payments.", ("payment_ids", "must hold 1 to 100 ids"))
    found = await desk.store.get_many(Payment, list(dict.fromkeys(ids)))
    return list(found.values())


async def payments_of(
    user_id: str, limit: int, cursor: str, caller: Identity, desk: Desk
) -> tuple[list[Payment], str | None]:
    """A page of a person's payments, oldest first, and the next cursor; an empty `user_id` means the caller's own.

    Those of which `order_payment` says that there are none are left out.
    """
    user_id = user_id or caller.subject
    require_self_or_admin(caller, user_id)
    page = await store.payments_of_user(desk.store, user_id, page_limit(limit), cursor or None)
    return [payment for payment in page.items if payment.amount is not None], page.next_cursor


async def ledger(limit: int, cursor: str, caller: Identity, desk: Desk) -> Page[LedgerEntry]:
    """The provider's books, oldest first; admins only."""
    require_admin(caller)
    return await desk.provider.ledger(page_limit(limit), cursor or None)


async def _open(instruction: Instruction, desk: Desk) -> Payment:
    """The order's payment, PENDING if it may be charged; called off or VOIDED if the order is not payable."""
    now = desk.clock.now()
    pid = payment_id(instruction.order_id)

    def change(found: Sequence[Any]) -> Changes[Payment]:
        payment, request_purge = found
        if payment is None:
            user_id = "" if request_purge else instruction.user_id
            payment = Payment(pid, instruction.order_id, user_id, instruction.amount, now, now)
            if not instruction.payable:
                payment.void(now)
            return Changes(payment, put=[payment])
        if payment.pending and not instruction.payable and not payment.void_requested:
            payment.request_void(now)
            return Changes(payment, put=[payment])
        return Changes(payment)

    failpoint("payments.open.before")
    payment = await desk.store.transact([Ref(Payment, pid), _erasure(instruction.user_id)], change)
    failpoint("payments.open.after")
    return payment


async def _call_off(order_id: str, user_id: str, desk: Desk) -> tuple[Payment, Refund | None]:
    """Commit that the order is cancelled: a tombstone, a request to void, or a refund of what is left."""
    now = desk.clock.now()
    pid, refund_id = payment_id(order_id), cancellation_refund_id(order_id)

    def change(found: Sequence[Any]) -> Changes[tuple[Payment, Refund | None]]:
        payment, refund, request_purge = found
        if payment is None:
            payment = Payment(pid, order_id, "" if request_purge else user_id, None, now, now)
            payment.void(now)
            return Changes((payment, None), put=[payment])
        put: list[Payment | Refund] = []
        if not payment.void_requested and payment.amount is not None:
            payment.request_void(now)
            put.append(payment)
        if not payment.pending and refund is None and payment.left > 0:
            refund = payment.ask_back(refund_id, None, ORDER_CANCELLED, now)
            put = [payment, refund]
        return Changes((payment, refund), put=put)

    refs = [Ref(Payment, pid), Ref(Refund, refund_id), _erasure(user_id)]
    failpoint("payments.call-off.before")
    called_off = await desk.store.transact(refs, change)
    failpoint("payments.call-off.after")
    return called_off


async def _settle(
    payment: Payment, outcome: ChargeOutcome, idempotency: IdempotencyRecord | None, desk: Desk
) -> None:
    """Commit the provider's answer, and for a cancelled order the refund of what was captured; give it
    back.
    """
    now = desk.clock.now()
    refund_id = cancellation_refund_id(payment.order_id)

    def change(found: Sequence[Any]) -> Changes[Refund | None]:
        payment, refund = found
        if not payment.pending:
            return Changes(refund)
        events = _answer(payment, outcome, now)
        if payment.void_requested and payment.left > 0:
            refund = payment.ask_back(refund_id, None, ORDER_CANCELLED, now)
            return Changes(refund, put=[payment, refund], events=events)
        return Changes(None, put=[payment], events=events)

    failpoint("payments.settle.before")
    refund = await desk.store.transact(
        [Ref(Payment, payment.id), Ref(Refund, refund_id)], change, idempotency=idempotency
    )
    failpoint("payments.settle.after")
    log.info("charge_settled", extra={"order_id": payment.order_id, "outcome": outcome.value})
    if refund is not None:
        await refunds.give_back(refund.id, None, desk)


def _answer(payment: Payment, outcome: ChargeOutcome, now: datetime) -> list[Payload]:
    if outcome is ChargeOutcome.CAPTURED:
        return payment.capture(now)
    if outcome is ChargeOutcome.VOIDED:
        return payment.void(now)
    return payment.decline(outcome.value, now)


def _forget_user(payment: Payment | None) -> tuple[Payment, Sequence[Payload]]:
    if payment is None:
        raise not_found("Payment", "PAYMENT_NOT_FOUND")
    payment.user_id = ""
    return payment, ()


def _erasure(user_id: str) -> Ref:
    return Ref(Erasure, user_id or ERASED_USER_ID)
