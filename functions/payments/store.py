"""How payments and refunds are kept, and the listings that the use cases need."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from functions.payments.domain import Dispute, Erasure, Payment, Reconciliation, Refund, RefundStatus
from functions.runtime.store.port import EntityMapping, IndexKey, Page, Store

ERASURES_KEPT = timedelta(days=30)
_PENDING = "pending"


def stamp(at: datetime) -> str:
    """A time as a sort key: as text it sorts as it does as time."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _payment_indexes(payment: Payment) -> Iterable[IndexKey]:
    if payment.user_id:
        yield IndexKey("user", payment.user_id, stamp(payment.created_at))
    if payment.pending:
        yield IndexKey(_PENDING, "all", stamp(payment.created_at))
    if payment.pending and payment.void_requested:
        yield IndexKey(_PENDING, "voids", stamp(payment.created_at))


def _refund_indexes(refund: Refund) -> Iterable[IndexKey]:
    yield IndexKey("payment", refund.payment_id, stamp(refund.created_at))
    if refund.status is RefundStatus.PENDING:
        yield IndexKey(_PENDING, "all", stamp(refund.created_at))


MAPPINGS = (
    EntityMapping(Payment, "payment", _payment_indexes),
    EntityMapping(Refund, "refund", _refund_indexes),
    EntityMapping(
        Dispute,
        "dispute",
        lambda dispute: [IndexKey("payment", dispute.payment_id, stamp(dispute.created_at))],
    ),
    EntityMapping(Reconciliation, "reconciliation"),
    EntityMapping(Erasure, "erasure", expires_at=lambda erasure: erasure.at + ERASURES_KEPT),
)


async def pending_payments(store: Store, before: datetime, cursor: str | None) -> Page[Payment]:
    """Charges not settled that began before `before`, oldest first."""
    return await store.page(Payment, _PENDING, "all", limit=100, cursor=cursor, until=stamp(before))


async def pending_voids(store: Store, before: datetime, cursor: str | None) -> Page[Payment]:
    """Those of `pending_payments` whose order is cancelled, so that nothing may be charged any more."""
    return await store.page(Payment, _PENDING, "voids", limit=100, cursor=cursor, until=stamp(before))


async def pending_refunds(store: Store, before: datetime, cursor: str | None) -> Page[Refund]:
    """Refunds not settled that began before `before`, oldest first."""
    return await store.page(Refund, _PENDING, "all", limit=100, cursor=cursor, until=stamp(before))


async def refunds_of(store: Store, payment_id: str, limit: int, cursor: str | None) -> Page[Refund]:
    """A payment's refunds, oldest first."""
    return await store.page(Refund, "payment", payment_id, limit=limit, cursor=cursor)


async def payments_of_user(store: Store, user_id: str, limit: int, cursor: str | None) -> Page[Payment]:
    """The payments that name the person, oldest first."""
    return await store.page(Payment, "user", user_id, limit=limit, cursor=cursor)
