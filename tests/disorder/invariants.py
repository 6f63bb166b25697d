"""The invariants that hold at every moment, and those that hold once everything is delivered and swept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from functions.notifications import store as notifications
from functions.orders.domain import STOCK_LOST_AFTER_SHIPPING, UNPAID, Order, Status
from functions.payments.domain import Payment, PaymentStatus, RefundStatus, payment_id
from functions.payments.providers.port import LedgerEntry
from functions.payments.providers.simulated import LOST
from functions.payments.store import refunds_of
from functions.products.stock.domain import Reservation, State, Stock
from tests.disorder.platform import Platform

SETTLED = {State.COMMITTED, State.RELEASED, State.REJECTED}


@dataclass
class ProviderTotals:
    """The amounts that the provider charged, refunded and lost for one order, in minor units."""

    charges: list[int] = field(default_factory=list)
    returned: int = 0
    lost: int = 0


async def ledger(platform: Platform) -> dict[str, ProviderTotals]:
    """Return the provider's totals by payment."""
    found: dict[str, ProviderTotals] = {}
    cursor: str | None = None
    while True:
        page = await platform.provider_store.page(LedgerEntry, "all", "all", limit=100, cursor=cursor)
        for entry in page.items:
            totals = found.setdefault(entry.payment_id, ProviderTotals())
            if entry.kind == "refund":
                totals.returned += entry.amount.amount
            elif entry.kind == "dispute":
                totals.lost += entry.amount.amount * (entry.outcome == LOST)
            elif entry.outcome == "succeeded":
                totals.charges.append(entry.amount.amount)
        cursor = page.next_cursor
        if cursor is None:
            return found


async def always(platform: Platform) -> None:
    """Check that stock and money add up, and that no delivery was refused."""
    assert not platform.refused
    await _stock_adds_up(platform)
    for pay_id, totals in (await ledger(platform)).items():
        order = platform.orders["ord_" + pay_id[4:]]
        assert totals.charges in ([], [order.total.amount]), "an order is charged once, its total"
        assert totals.returned + totals.lost <= sum(totals.charges), "no more goes back than was taken"


async def _stock_adds_up(platform: Platform) -> None:
    held, sold = Counter[str](), Counter[str]()
    for reservation in (await platform.store["products"].get_many(Reservation, list(platform.orders))).values():
        for line in reservation.lines:
            held[line.product_id] += line.quantity * (reservation.state is State.RESERVED)
            sold[line.product_id] += line.quantity * (reservation.state is State.COMMITTED)
    for stock in (await platform.store["products"].get_many(Stock, list(platform.products))).values():
        assert 0 <= stock.reserved <= stock.on_hand
        assert stock.reserved == held[stock.id], "what is reserved is what orders hold"
        assert stock.on_hand == platform.products[stock.id] - sold[stock.id], "what is gone was sold"


async def at_the_end(platform: Platform) -> None:
    """Check, after everything was delivered and swept, that every order is final and all sums agree."""
    await always(platform)
    assert not platform.pending
    totals = await ledger(platform)
    for order_id in platform.orders:
        order = await platform.store["orders"].get(Order, order_id)
        assert order is not None
        await _order_is_final(platform, order)
        await _money_agrees(platform, order, totals.get(payment_id(order.id), ProviderTotals()))
    for user_id in platform.people:
        await _person(platform, user_id)
    assert max(Counter(platform.mail_channel.sent).values(), default=1) == 1, "every message goes out once"


async def _order_is_final(platform: Platform, order: Order) -> None:
    assert order.status not in UNPAID
    assert not order.payment_token
    assert (order.shipping_address is None) == (order.user_id in platform.deleted)
    reservation = await platform.store["products"].get(Reservation, order.id)
    assert reservation is not None
    assert reservation.state in SETTLED
    sold = reservation.state is State.COMMITTED
    lost = any(entry.reason == STOCK_LOST_AFTER_SHIPPING for entry in order.timeline)
    assert sold == (order.status is not Status.CANCELLED) or lost, f"{order.status}, {reservation.state}"


async def _money_agrees(platform: Platform, order: Order, totals: ProviderTotals) -> None:
    payment = await platform.store["payments"].get(Payment, payment_id(order.id))
    assert payment is not None
    assert payment.status is not PaymentStatus.PENDING
    assert payment.refunding == 0
    assert payment.captured == sum(totals.charges)
    assert payment.refunded == totals.returned == order.refunded.amount
    assert payment.charged_back == totals.lost
    assert payment.disputed == payment.locked == 0
    assert not order.disputed
    back = payment.refunded + payment.charged_back
    if order.status is Status.CANCELLED:
        assert payment.captured == back, "a cancelled order costs nothing"
    else:
        assert totals.charges == [order.total.amount], "a paid order was charged exactly once"
    assert (payment.user_id == "") == (order.user_id in platform.deleted)
    refunds = (await refunds_of(platform.store["payments"], payment.id, 100, None)).items
    assert all(refund.status is not RefundStatus.PENDING for refund in refunds)
    arrived = [refund.amount.amount for refund in refunds if refund.status is RefundStatus.SUCCEEDED]
    assert sum(arrived) == payment.refunded
    never_shipped = all(entry.status is not Status.SHIPPED for entry in order.timeline)
    if never_shipped and 0 < payment.captured == back:
        assert order.status is Status.CANCELLED, "nothing is kept for an order whose money went back"


async def _person(platform: Platform, user_id: str) -> None:
    page = await notifications.notifications_of(platform.store["notifications"], user_id, 1000, None)
    assert not any(message.pending for message in page.items)
    assert not (page.items and user_id in platform.deleted), "nothing is left of a deleted account"
