"""Entity mappings of payments, refunds and disputes, and the listings that the use cases read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from functions.payments.domain import Dispute, Payment, Reconciliation, Refund, RefundStatus
from functions.runtime.clock import sortable
from functions.runtime.erasure import ERASURE_MAPPING
from functions.runtime.store.port import EntityMapping, IndexKey, Page, Store

_PENDING = "pending"


def _payment_indexes(payment: Payment) -> Iterable[IndexKey]:
    if payment.user_id:
        yield IndexKey("user", payment.user_id, sortable(payment.created_at))
    if payment.pending:
        yield IndexKey(_PENDING, "all", sortable(payment.created_at))
    if payment.pending and payment.void_requested:
        yield IndexKey(_PENDING, "voids", sortable(payment.created_at))


def _refund_indexes(refund: Refund) -> Iterable[IndexKey]:
    yield IndexKey("payment", refund.payment_id, sortable(refund.created_at))
    if refund.status is RefundStatus.PENDING:
        yield IndexKey(_PENDING, "all", sortable(refund.created_at))


MAPPINGS = (
    EntityMapping(Payment, "payment", _payment_indexes),
    EntityMapping(Refund, "refund", _refund_indexes),
    EntityMapping(
        Dispute, "dispute", lambda dispute: [IndexKey("payment", dispute.payment_id, sortable(dispute.created_at))]
    ),
    EntityMapping(Reconciliation, "reconciliation"),
    ERASURE_MAPPING,
)


async def pending_payments(store: Store, before: datetime, cursor: str | None) -> Page[Payment]:
    """List the pending payments that were created before `before`, oldest first."""
    return await store.page(Payment, _PENDING, "all", limit=100, cursor=cursor, until=sortable(before))


async def pending_voids(store: Store, before: datetime, cursor: str | None) -> Page[Payment]:
    """List the pending payments of cancelled orders that were created before `before`, oldest first."""
    return await store.page(Payment, _PENDING, "voids", limit=100, cursor=cursor, until=sortable(before))


async def pending_refunds(store: Store, before: datetime, cursor: str | None) -> Page[Refund]:
    """List the pending refunds that were created before `before`, oldest first."""
    return await store.page(Refund, _PENDING, "all", limit=100, cursor=cursor, until=sortable(before))


async def refunds_of(store: Store, payment_id: str, limit: int, cursor: str | None) -> Page[Refund]:
    """List a payment's refunds, oldest first."""
    return await store.page(Refund, "payment", payment_id, limit=limit, cursor=cursor)


async def payments_of_user(store: Store, user_id: str, limit: int, cursor: str | None) -> Page[Payment]:
    """List the payments of a user, oldest first."""
    return await store.page(Payment, "user", user_id, limit=limit, cursor=cursor)
