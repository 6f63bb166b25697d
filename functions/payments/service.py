"""Use cases of payments: charge an order once, void or refund its payment after a cancellation, and read payments.

A charge has three steps: commit a PENDING payment, call the provider with the payment's id as idempotency key, and
commit the provider's answer. A crash between two steps leaves a PENDING payment. Then a redelivery of the event or the
sweep repeats the call, and the provider returns the same answer. So an order is charged at most once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from events.catalog import ERASED_USER_ID, OrderCancelled, Payload, StockReserved, UserDeleted
from functions.payments import store
from functions.payments.clients import Instruction, Orders
from functions.payments.domain import ORDER_CANCELLED, Payment, Refund, RefundStatus, cancellation_refund_id, payment_id
from functions.payments.providers.port import ChargeOutcome, LedgerEntry, PaymentProvider, ProviderEvent, Webhook
from functions.payments.refunds import RefundsService, visible_payment
from functions.runtime.clock import Clock
from functions.runtime.erasure import Erasure, record_erasure
from functions.runtime.errors import invalid, not_found
from functions.runtime.identity import Identity, require_admin, require_self_or_admin
from functions.runtime.inbox import InboxRecord, commit_inbox_record, inbox_record
from functions.runtime.paging import all_pages, page_limit
from functions.runtime.store.port import AlreadyDone, Changes, Page, Ref, Store
from functions.runtime.sweeps import gather_logged, sweep_deadline
from observability.failpoints import failpoints

log = logging.getLogger("shop.payments")

MAX_BATCH = 100
PendingPage = Callable[[Store, datetime, str | None], Awaitable[Page[Payment]]]


@dataclass(frozen=True)
class ListPayments:
    """List the payments of a user, or of the caller if `user_id` is empty."""

    user_id: str
    limit: int
    cursor: str


@dataclass(frozen=True)
class ListLedger:
    """List the provider's ledger."""

    limit: int
    cursor: str


class PaymentsService:
    """Use cases of payments. Collaborators are fixed at start; methods are safe to call concurrently.

    The sweep retries a payment that has been pending for longer than `settle_after`. `webhook` is None if the provider
    sends no events.
    """

    def __init__(
        self,
        store: Store,
        provider: PaymentProvider,
        orders: Orders,
        refunds: RefundsService,
        clock: Clock,
        *,
        settle_after: timedelta,
        webhook: Webhook | None = None,
    ) -> None:
        self._store = store
        self._provider = provider
        self._orders = orders
        self._refunds = refunds
        self._clock = clock
        self._settle_after = settle_after
        self._webhook = webhook

    async def get_order_payment(self, order_id: str, caller: Identity) -> Payment:
        """Return the payment of an order.

        Raises:
            NotFound: PAYMENT_NOT_FOUND if no charge was requested, or if the caller is neither the payer nor an admin.
        """
        payment = await self._store.get(Payment, payment_id(order_id))
        is_tombstone = payment is not None and payment.amount is None
        return visible_payment(None if is_tombstone else payment, caller)

    async def batch_get(self, payment_ids: Sequence[str], caller: Identity) -> list[Payment]:
        """Return the payments that exist among 1 to 100 ids. Admins only."""
        require_admin(caller)
        if not 1 <= len(payment_ids) <= MAX_BATCH:
            raise invalid("Ask for 1 to 100 payments.", ("payment_ids", "must hold 1 to 100 ids"))
        found = await self._store.get_many(Payment, list(dict.fromkeys(payment_ids)))
        return list(found.values())

    async def list_payments(self, query: ListPayments, caller: Identity) -> Page[Payment]:
        """List a user's payments, oldest first. Payments of orders that were cancelled before a charge are left out.

        Raises:
            PermissionDenied: the caller is neither that user nor an admin.
        """
        user_id = query.user_id or caller.subject
        require_self_or_admin(caller, user_id)
        page = await store.payments_of_user(self._store, user_id, page_limit(query.limit), query.cursor or None)
        return Page([payment for payment in page.items if payment.amount is not None], page.next_cursor)

    async def list_ledger(self, query: ListLedger, caller: Identity) -> Page[LedgerEntry]:
        """List the provider's ledger, oldest first. Admins only."""
        require_admin(caller)
        return await self._provider.ledger(page_limit(query.limit), query.cursor or None)

    async def on_stock_reserved(self, event: StockReserved, inbox: InboxRecord) -> None:
        """Charge the order. Raises UNAVAILABLE if the orders service or the provider does not answer."""
        await self._charge(event.order_id, inbox)

    async def on_order_cancelled(self, event: OrderCancelled, inbox: InboxRecord) -> None:
        """Void or refund the order's payment. Raises UNAVAILABLE if the provider does not answer."""
        # First book refunds that were made at the provider. Otherwise our refund would be too large, and refused.
        await self._refunds.try_reconcile(payment_id(event.order_id))
        payment, refund = await self._commit_cancellation(event.order_id, event.user_id)
        if payment.pending:
            await self._settle(payment, await self._provider.void(payment.id), inbox)
        elif refund is not None and refund.status is RefundStatus.PENDING:
            await self._refunds.settle(refund.id, inbox)

    async def on_user_deleted(self, event: UserDeleted, inbox: InboxRecord) -> None:
        """Remove the user's id from all payments, which are kept for accounting. It is safe to repeat."""
        await record_erasure(self._store, event.user_id, self._clock.now())
        while (page := await store.payments_of_user(self._store, event.user_id, MAX_BATCH, None)).items:
            for payment in page.items:
                with failpoints("payments.erase"):
                    await self._store.update(Payment, payment.id, _remove_user)

    async def receive_webhook(self, payload: bytes, signature: str) -> None:
        """Handle one event of the provider. Events that are not about our charges are ignored.

        The event's content is not booked. The event only causes a call to the provider for the charge that it concerns.
        So money is booked in the same way, whether a webhook or the sweep notices a change first.

        Raises:
            InvalidArgument: SIGNATURE_INVALID, WEBHOOK_MALFORMED.
            NotFound: WEBHOOK_NOT_FOUND if no webhook is configured.
            Unavailable: the provider does not answer. It will send the event again.
        """
        if self._webhook is None:
            raise not_found("Webhook", "WEBHOOK_NOT_FOUND")
        event = await self._webhook.parse(payload, signature)
        inbox = inbox_record("/payment-provider", event.id, self._clock.now())
        try:
            if event.kind == "charge":
                await self._on_charge_changed(event, inbox)
            elif event.kind in ("refund", "dispute"):
                await self._on_refund_or_dispute_changed(event, inbox)
        except AlreadyDone:
            log.info("webhook_repeated", extra=_log_fields(event))

    async def sweep(self) -> None:
        """Retry payments and refunds that a crash or an outage left pending, and book changes made at the provider.

        Refunds and voids come before charges, so that charges that time out do not delay them.
        """
        before = self._clock.now() - self._settle_after
        async with sweep_deadline(log):
            await self._refunds.settle_pending(before)
            await self._charge_pending(store.pending_voids, before)
            await gather_logged([self._refunds.reconcile_changes()], log)
            await self._charge_pending(store.pending_payments, before)

    async def _charge_pending(self, pending: PendingPage, before: datetime) -> None:
        async for payments in all_pages(partial(pending, self._store, before)):
            await gather_logged([self._charge(payment.order_id, None, payment) for payment in payments], log)

    async def _charge(self, order_id: str, inbox: InboxRecord | None, known: Payment | None = None) -> None:
        """Charge an order, or void its payment if it is cancelled. `inbox` commits with the provider's answer.

        `known` is the pending payment that the caller has read. Voiding it needs no call to the orders service.
        """
        if known is not None and known.void_requested:
            await self._settle(known, await self._provider.void(known.id), inbox)
            return
        instruction = await self._orders.payment_instruction(order_id)
        payment, is_new = await self._open(instruction)
        if not payment.pending:
            return
        if payment.void_requested:
            outcome = await self._provider.void(payment.id)
        elif instruction.amount.amount == 0:
            outcome = ChargeOutcome.CAPTURED  # no provider charges an amount of zero
        else:
            outcome = await self._provider.charge(payment.id, instruction.amount, instruction.token)
        await self._settle(payment, outcome, inbox)
        if not is_new:
            # The provider may have made the charge long before this answer. A refund or dispute that was reported in
            # between was not booked.
            await self._refunds.try_reconcile(payment.id)

    async def _open(self, instruction: Instruction) -> tuple[Payment, bool]:
        """Commit and return the order's payment, and whether it is new.

        A payable order's payment is PENDING. Otherwise a new payment is VOIDED, and an existing pending one gets
        `void_requested`.
        """
        now = self._clock.now()
        key = payment_id(instruction.order_id)

        def change(found: Sequence[Any]) -> Changes[tuple[Payment, bool]]:
            payment, erasure = found
            if payment is None:
                user_id = "" if erasure else instruction.user_id
                payment = Payment(key, instruction.order_id, user_id, instruction.amount, now, now)
                if not instruction.payable:
                    payment.void(now)
                return Changes((payment, True), put=[payment])
            if payment.pending and not instruction.payable and not payment.void_requested:
                payment.request_void(now)
                return Changes((payment, False), put=[payment])
            return Changes((payment, False))

        with failpoints("payments.open"):
            return await self._store.transact(
                [Ref(Payment, key), _erasure_ref(instruction.user_id)], change, likely_new=True
            )

    async def _commit_cancellation(self, order_id: str, user_id: str) -> tuple[Payment, Refund | None]:
        """Commit that the order is cancelled. This writes a tombstone, a request to void, or a refund of the rest.

        Returns the payment, and the refund if there is one.
        """
        now = self._clock.now()
        key, refund_id = payment_id(order_id), cancellation_refund_id(order_id)

        def change(found: Sequence[Any]) -> Changes[tuple[Payment, Refund | None]]:
            payment, refund, erasure = found
            if payment is None:
                payment = Payment(key, order_id, "" if erasure else user_id, None, now, now)
                payment.void(now)
                return Changes((payment, None), put=[payment])
            put: list[Payment | Refund] = []
            if not payment.void_requested and payment.amount is not None:
                payment.request_void(now)
                put.append(payment)
            if not payment.pending and refund is None and payment.refundable > 0:
                refund = payment.request_refund(refund_id, None, ORDER_CANCELLED, now)
                put = [payment, refund]
            return Changes((payment, refund), put=put)

        refs = [Ref(Payment, key), Ref(Refund, refund_id), _erasure_ref(user_id)]
        with failpoints("payments.call-off"):
            return await self._store.transact(refs, change)

    async def _settle(self, payment: Payment, outcome: ChargeOutcome, inbox: InboxRecord | None) -> None:
        """Commit the provider's answer to a charge. If the order is cancelled, refund the captured amount."""
        now = self._clock.now()
        refund_id = cancellation_refund_id(payment.order_id)

        def change(found: Sequence[Any]) -> Changes[Refund | None]:
            payment, refund = found
            if not payment.pending:
                return Changes(refund)
            events = _apply_outcome(payment, outcome, now)
            if payment.void_requested and payment.refundable > 0:
                refund = payment.request_refund(refund_id, None, ORDER_CANCELLED, now)
                return Changes(refund, put=[payment, refund], events=events)
            return Changes(None, put=[payment], events=events)

        refs = [Ref(Payment, payment.id), Ref(Refund, refund_id)]
        with failpoints("payments.settle"):
            refund = await self._store.transact(refs, change, idempotency=inbox)
        log.info("charge_settled", extra={"order_id": payment.order_id, "outcome": outcome.value})
        if refund is not None:
            await self._refunds.settle(refund.id, None)

    async def _on_charge_changed(self, event: ProviderEvent, inbox: InboxRecord) -> None:
        payment = await self._store.get(Payment, event.key) if event.key else None
        if payment is not None and payment.pending:
            await self._charge(payment.order_id, inbox, payment)

    async def _on_refund_or_dispute_changed(self, event: ProviderEvent, inbox: InboxRecord) -> None:
        key = await self._provider.find_charge_key(event.charge_id) if event.charge_id else ""
        payment = await self._store.get(Payment, key) if key else None
        if payment is None:
            log.warning("webhook_of_an_unknown_charge", extra=_log_fields(event))
            return
        if payment.pending:
            await self._charge(payment.order_id, None, payment)
        await self._refunds.reconcile(payment.id)
        await commit_inbox_record(self._store, inbox)


def _apply_outcome(payment: Payment, outcome: ChargeOutcome, now: datetime) -> list[Payload]:
    if outcome is ChargeOutcome.CAPTURED:
        return payment.capture(now)
    if outcome is ChargeOutcome.VOIDED:
        return payment.void(now)
    return payment.decline(outcome.value, now)


def _remove_user(payment: Payment | None) -> tuple[Payment, Sequence[Payload]]:
    if payment is None:
        raise not_found("Payment", "PAYMENT_NOT_FOUND")
    payment.user_id = ""
    return payment, ()


def _erasure_ref(user_id: str) -> Ref:
    return Ref(Erasure, user_id or ERASED_USER_ID)


def _log_fields(event: ProviderEvent) -> dict[str, str]:
    return {
        "webhook_event": event.id,
        "webhook_type": event.type,
        "provider_id": event.provider_id,
        "reason": event.reason,
    }
