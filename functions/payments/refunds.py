"""Use cases of refunds, and reconciliation: booking refunds and disputes that were made at the provider.

The amount of a refund is first set aside in the payment, so that refunds never exceed the charge in total. Changes made
in the provider's dashboard or by the payer's bank are read from the provider's statement of the charge. Webhooks, the
sweep and refused refunds all call `reconcile`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from events.catalog import Money, Payload
from functions.payments import store
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
    derived_id,
)
from functions.payments.providers.port import DisputeRecord, PaymentProvider, RefundOutcome, RefundRecord, RefundState
from functions.runtime.clock import Clock
from functions.runtime.currencies import ProviderLimits
from functions.runtime.errors import ServiceError, aborted, invalid, not_found
from functions.runtime.formats import REASON
from functions.runtime.idempotency import fingerprint, idempotency_record, wrong_key
from functions.runtime.identity import Identity, require_admin, require_signed_in
from functions.runtime.ids import new_id
from functions.runtime.inbox import InboxRecord
from functions.runtime.paging import all_pages, page_limit
from functions.runtime.store.port import Changes, IdempotencyRecord, Page, Ref, Store
from functions.runtime.sweeps import gather_logged
from observability.failpoints import failpoints

log = logging.getLogger("shop.payments")

CANCELLATION_ATTEMPTS = 4
WINDOW = timedelta(days=1)
"""The provider's changes are read, and marked as read, in windows of this length."""
FIRST_LOOK = timedelta(days=30)
"""How far the first reconciliation looks back. Stripe keeps its events for the same time."""
OVERLAP = timedelta(minutes=5)
"""How long before the end of the last reconciliation the next begins, to find changes that the provider lists late."""
_PROGRESS_ID = "provider"
_REASON = re.compile(REASON)


@dataclass(frozen=True)
class RefundPayment:
    """Refund `amount` of a payment, or the whole refundable amount if it is None."""

    payment_id: str
    amount: Money | None = None
    reason: str = ""
    idempotency_key: str | None = None


@dataclass(frozen=True)
class ListRefunds:
    """List the refunds of a payment."""

    payment_id: str
    limit: int
    cursor: str


class RefundsService:
    """Use cases of refunds and disputes. Collaborators are fixed at start; methods are safe to call concurrently.

    A repeated idempotency key whose refund is pending is refused as in flight, until the refund is older than
    `settle_after`. `limits` are the provider's limits of amounts.
    """

    def __init__(
        self, store: Store, provider: PaymentProvider, clock: Clock, *, settle_after: timedelta, limits: ProviderLimits
    ) -> None:
        self._store = store
        self._provider = provider
        self._clock = clock
        self._settle_after = settle_after
        self._limits = limits

    async def refund(self, command: RefundPayment, caller: Identity) -> Refund:
        """Refund a payment, in full or in part. Admins only.

        Returns the refund. It is PENDING if the provider did not answer; the sweep then settles it. A repeated
        idempotency key returns the first refund.

        Raises:
            InvalidArgument: INVALID_ARGUMENT, AMOUNT_NOT_CHARGEABLE, CURRENCY_MISMATCH, IDEMPOTENCY_KEY_REUSED.
            NotFound: PAYMENT_NOT_FOUND.
            FailedPrecondition: NOT_CAPTURED, PAYMENT_DISPUTED, REFUND_EXCEEDS_CAPTURED.
            Aborted: IDEMPOTENCY_KEY_IN_FLIGHT.
        """
        require_admin(caller)
        reason = command.reason or REQUESTED_BY_MERCHANT
        _validate(command.amount, reason, command.idempotency_key, self._limits)
        now, fresh_id = self._clock.now(), new_id("ref")

        def change(found: Sequence[Any]) -> Changes[Refund]:
            payment: Payment | None = found[0]
            if payment is None:
                raise not_found("Payment", "PAYMENT_NOT_FOUND")
            refund = payment.request_refund(fresh_id, command.amount, reason, now)
            return Changes(refund, put=[payment, refund])

        refs = [Ref(Payment, command.payment_id), Ref(Refund, fresh_id)]
        with failpoints("payments.refund"):
            first = await self._store.transact(refs, change, idempotency=_idempotency(command, reason, caller))
        if first.id != fresh_id:
            await self._refuse_in_flight(first.id)
        return await self._try_settle(first)

    async def list_refunds(self, query: ListRefunds, caller: Identity) -> Page[Refund]:
        """List a payment's refunds, oldest first.

        Raises NOT_FOUND (PAYMENT_NOT_FOUND), also if the caller is neither the payer nor an admin.
        """
        visible_payment(await self._store.get(Payment, query.payment_id), caller)
        return await store.refunds_of(self._store, query.payment_id, page_limit(query.limit), query.cursor or None)

    async def settle(self, refund_id: str, inbox: InboxRecord | None) -> Refund:
        """Ask the provider to make a pending refund, and commit its answer together with `inbox`.

        Raises:
            Unavailable: the provider does not answer. The refund stays PENDING.
        """
        refund = await self._store.get(Refund, refund_id)
        if refund is None:
            raise not_found("Refund", "REFUND_NOT_FOUND")
        if refund.status is not RefundStatus.PENDING:
            return refund
        if refund.provider_id:
            await self.reconcile(refund.payment_id)
            return await self._store.get(Refund, refund_id) or refund
        outcome = await self._provider.refund(refund.id, refund.payment_id, refund.amount)
        refund = await self._commit_outcome(refund, outcome, inbox)
        if refund.status is RefundStatus.FAILED:
            log.error("refund_refused", extra={"refund_id": refund.id, "order_id": refund.order_id})
            await self.try_reconcile(refund.payment_id)
        return refund

    async def settle_pending(self, before: datetime) -> None:
        """Settle the pending refunds that were created before `before`."""
        async for refunds in all_pages(partial(store.pending_refunds, self._store, before)):
            await gather_logged([self._try_settle(refund) for refund in refunds], log)

    async def reconcile(self, payment_id: str) -> None:
        """Book the refunds and disputes in the provider's statement of a charge. It is safe to repeat.

        If this makes money of a cancelled order refundable, that money is refunded.

        Raises:
            Unavailable: the provider does not answer.
        """
        payment = await self._store.get(Payment, payment_id)
        if payment is None or payment.captured == 0:
            return
        statement = await self._provider.statement(payment_id)
        changed = [await self._book_refund(payment, record) for record in statement.refunds]
        changed += [await self._book_dispute(payment, record) for record in statement.disputes]
        if any(changed):
            await self._refund_cancelled(payment_id)

    async def try_reconcile(self, payment_id: str) -> None:
        """Reconcile a payment if the provider answers; otherwise leave it to the sweep."""
        try:
            await self.reconcile(payment_id)
        except ServiceError as error:
            log.warning("not_reconciled", extra={"payment_id": payment_id, "reason": error.reason})

    async def reconcile_changes(self) -> None:
        """Reconcile every charge that changed at the provider since the last reconciliation. Raises UNAVAILABLE."""
        now = self._clock.now()
        known = await self._store.get(Reconciliation, _PROGRESS_ID)
        since = known.until if known else now - FIRST_LOOK
        while since < now:
            until = min(now, since + WINDOW)
            for payment_id in await self._provider.changed_charges(since, until):
                await self.reconcile(payment_id)
            since = until if until < now else max(since, now - OVERLAP)
            await self._store.update(Reconciliation, _PROGRESS_ID, partial(_advance, until=since))
            if until == now:
                break

    async def _refund_cancelled(self, payment_id: str) -> None:
        """Refund the rest of a cancelled order's payment, in a new attempt if an earlier one was refused."""
        now = self._clock.now()
        order_id = "ord_" + payment_id[4:]
        ids = [cancellation_refund_id(order_id, attempt) for attempt in range(CANCELLATION_ATTEMPTS)]

        def change(found: Sequence[Any]) -> Changes[Refund | None]:
            payment, *attempts = found
            free = next((ids[at] for at, refund in enumerate(attempts) if refund is None), None)
            pending = any(refund and refund.status is RefundStatus.PENDING for refund in attempts)
            if not payment.void_requested or pending or free is None or payment.refundable == 0:
                return Changes(None)
            refund = payment.request_refund(free, None, ORDER_CANCELLED, now)
            return Changes(refund, put=[payment, refund])

        refs = [Ref(Payment, payment_id), *(Ref(Refund, refund_id) for refund_id in ids)]
        refund = await self._store.transact(refs, change)
        if refund is not None:
            await self._try_settle(refund)

    async def _book_refund(self, payment: Payment, record: RefundRecord) -> bool:
        """Book the provider's record of a refund. Returns whether this may change the refundable amount."""
        ours = await self._store.get(Refund, record.key) if record.key else None
        if ours is not None and ours.payment_id == payment.id:
            if ours.status is RefundStatus.PENDING and record.state is not RefundState.PENDING:
                await self.settle(ours.id, None)
                return False
            refund_id = ours.id
        else:
            refund_id = derived_id("ref", record.provider_id)
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[str]:
            payment, refund = found
            if refund is None:
                if record.state is RefundState.FAILED:
                    return Changes("")
                refund = payment.adopt_refund(refund_id, record.provider_id, record.amount, now)
            elif refund.status == record.state or refund.status is RefundStatus.FAILED:
                return Changes("")
            returned = refund.status is RefundStatus.SUCCEEDED
            events = payment.follow_refund(refund, RefundStatus(record.state), now)
            return Changes("returned" if returned else "booked", put=[payment, refund], events=events)

        done = await self._store.transact([Ref(Payment, payment.id), Ref(Refund, refund_id)], change)
        fields = {"order_id": payment.order_id, "refund_id": refund_id, "provider_id": record.provider_id}
        if done == "returned":
            # The payer's bank returned the money, and only a person can find another way to refund it.
            log.error("refund_returned", extra=fields)
        elif done:
            log.warning("refund_made_elsewhere", extra=fields)
        return done == "booked"

    async def _book_dispute(self, payment: Payment, record: DisputeRecord) -> bool:
        """Book the provider's record of a dispute. Returns whether this closed the dispute."""
        dispute_id, status = derived_id("dsp", record.provider_id), DisputeStatus(record.state)
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[str]:
            payment, dispute = found
            events: list[Payload] = []
            if dispute is None:
                dispute = Dispute(
                    dispute_id, payment.id, payment.order_id, record.amount, record.reason, record.refundable, now, now
                )
                events += payment.open_dispute(dispute, now)
            elif dispute.status is not DisputeStatus.OPEN:
                return Changes("")
            if status is not DisputeStatus.OPEN:
                events += payment.close_dispute(dispute, status, now)
            elif dispute.refundable and not record.refundable:
                events += payment.lock_dispute(dispute, now)
            elif not events:
                return Changes("")
            return Changes(dispute.status.value, put=[payment, dispute], events=events)

        done = await self._store.transact([Ref(Payment, payment.id), Ref(Dispute, dispute_id)], change)
        if done:
            fields = {"order_id": payment.order_id, "provider_id": record.provider_id, "status": done}
            log.warning("charge_disputed", extra={**fields, "reason": record.reason})
        return done in (DisputeStatus.WON, DisputeStatus.LOST)

    async def _commit_outcome(self, refund: Refund, outcome: RefundOutcome, inbox: InboxRecord | None) -> Refund:
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[Refund]:
            payment, refund = found
            if refund.status is not RefundStatus.PENDING:
                return Changes(refund)
            is_made = outcome is RefundOutcome.SUCCEEDED
            events = (payment.complete_refund if is_made else payment.fail_refund)(refund, now)
            return Changes(refund, put=[payment, refund], events=events)

        refs = [Ref(Payment, refund.payment_id), Ref(Refund, refund.id)]
        with failpoints("payments.refund-settle"):
            return await self._store.transact(refs, change, idempotency=inbox)

    async def _try_settle(self, refund: Refund) -> Refund:
        """Settle a refund if the provider answers; otherwise leave it PENDING for the sweep."""
        try:
            return await self.settle(refund.id, None)
        except ServiceError as error:
            log.warning("refund_left_pending", extra={"refund_id": refund.id, "reason": error.reason})
            return refund

    async def _refuse_in_flight(self, refund_id: str) -> None:
        """Raise ABORTED if the first request with the same key may still be waiting for the provider."""
        refund = await self._store.get(Refund, refund_id)
        if refund is None or refund.status is not RefundStatus.PENDING:
            return
        if self._clock.now() - refund.created_at < self._settle_after:
            raise aborted("IDEMPOTENCY_KEY_IN_FLIGHT", "The first request with this key is still being handled.", 1.0)


def visible_payment(payment: Payment | None, caller: Identity) -> Payment:
    """Return `payment` for its payer or an admin. Raises NOT_FOUND for other callers, to hide that it exists."""
    require_signed_in(caller)
    is_payer = payment is not None and not caller.is_service and caller.subject == payment.user_id
    if payment is None or not (caller.is_admin or is_payer):
        raise not_found("Payment", "PAYMENT_NOT_FOUND")
    return payment


def _advance(found: Reconciliation | None, until: datetime) -> tuple[Reconciliation, Sequence[Payload]]:
    progress = found or Reconciliation(_PROGRESS_ID, until)
    progress.until = max(progress.until, until)
    return progress, ()


def _idempotency(command: RefundPayment, reason: str, caller: Identity) -> IdempotencyRecord | None:
    if command.idempotency_key is None:
        return None
    amount = f"{command.amount.amount}{command.amount.currency}" if command.amount else "all"
    request = f"{command.payment_id}|{amount}|{reason}"
    scope = f"refunds:{caller.subject}"
    return idempotency_record(scope, command.idempotency_key, fingerprint(request.encode()), Refund)


def _validate(amount: Money | None, reason: str, key: str | None, limits: ProviderLimits) -> None:
    violations = [*wrong_key(key)]
    if amount is not None and amount.amount <= 0:
        violations.append(("amount.amount", "must be more than zero"))
    if not _REASON.fullmatch(reason):
        violations.append(("reason", "must be UPPER_SNAKE, at most 64 characters"))
    if violations:
        raise invalid("The refund is not valid.", *violations)
    if amount is not None and (problem := limits.refund_problem(amount)) is not None:
        part, message = problem
        raise invalid(
            f"{limits.provider} cannot refund this amount.", (f"amount.{part}", message), reason="AMOUNT_NOT_CHARGEABLE"
        )
