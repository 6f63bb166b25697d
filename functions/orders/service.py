"""The use cases of orders: what people and other services ask for, and what events tell of.

Collaborators come as arguments: `orders` (the store, waking watchers), `catalogue` (prices), `clock`, `caller`
calls, and for events `idempotency` (the inbox mark that commits with the effect). Somebody else's order answers
NOT_FOUND.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator
from datetime import timedelta

from events.catalog import (
    Payload,
    PaymentCaptured,
    PaymentDeclined,
    PaymentDisputeClosed,
    PaymentDisputed,
    PaymentRefunded,
    PaymentRefundFailed,
    StockRejected,
)
from functions.orders.checkout import Placement, price, require_expected, validate
from functions.orders.clients import Catalogue
from functions.orders.domain import PLATFORM_REASONS, TIMED_OUT, Order, Status
from functions.orders.metrics import REFUSED
from functions.orders.store import Orders, Receipt
from functions.orders.tickets import IssuedTicket, issue_ticket, redeem_ticket
from functions.orders.velocity import Budgets
from functions.orders.watching import Watchers
from functions.runtime.clock import Clock
from functions.runtime.concurrency import gather_logged
from functions.runtime.currencies import SIMULATED, ProviderLimits
from functions.runtime.errors import Code, ServiceError, invalid, not_found
from functions.runtime.formats import REASON
from functions.runtime.idempotency import idempotency_record
from functions.runtime.identity import Identity, require_admin, require_person, require_service
from functions.runtime.ids import new_id
from functions.runtime.paging import page_limit
from functions.runtime.store.port import IdempotencyRecord, Page

log = logging.getLogger("shop.orders")

CUSTOMER_REQUEST = "CUSTOMER_REQUEST"
_REASON = re.compile(REASON)
_BATCH = 100
_SWEEP_PAGES = 20  # at most 2,000 orders a tick: the next tick takes the rest


async def place(
    orders: Orders,
    catalogue: Catalogue,
    clock: Clock,
    caller: Identity,
    wanted: Placement,
    limits: ProviderLimits = SIMULATED,
    *,
    budgets: Budgets | None = None,
) -> Order:
    """Place an order at the catalogue's prices of this moment, and answer with it as it is then: PLACED.

    The same key and request within 24 hours gives the first answer, whatever became of order and catalogue.
    `limits` is what the payment provider can charge, `budgets` how fast orders may be placed.

    Raises INVALID_ARGUMENT (also PRODUCT_UNKNOWN, CURRENCY_MIXED, TOTAL_TOO_LARGE, TOTAL_NOT_CHARGEABLE,
    IDEMPOTENCY_KEY_REUSED), FAILED_PRECONDITION (PRODUCT_INACTIVE, PRICE_CHANGED), RESOURCE_EXHAUSTED (TOO_MANY_ORDERS,
    TOO_MANY_UNPAID_ORDERS, TOO_MANY_DECLINES).
    """
    require_person(caller)
    wanted = validate(wanted)
    idempotency = None
    if wanted.key is not None:
        idempotency = idempotency_record(f"orders:{caller.subject}", wanted.key, wanted.fingerprint, Receipt)
        replayed = await orders.replay(idempotency)
        if replayed:
            return replayed
    offers = await catalogue.offers([item.product_id for item in wanted.items])
    lines, total = price(wanted.items, offers, limits)
    require_expected(wanted.expected_total, total)
    now = clock.now()
    order = Order(
        id=new_id("ord"),
        user_id=caller.subject,
        lines=lines,
        total=total,
        shipping_address=wanted.address,
        payment_token=wanted.payment_token,
        created_at=now,
        updated_at=now,
        moved_at=now,
    )
    try:
        placed = await orders.place(order, idempotency, budgets, wanted.client_address)
    except ServiceError as error:
        if error.code is Code.RESOURCE_EXHAUSTED:
            REFUSED.labels(error.reason).inc()
            log.warning("order_refused", extra={"user_id": caller.subject, "reason": error.reason})
        raise
    log.info("order_placed", extra={"order_id": placed.id})
    return placed


async def get(orders: Orders, caller: Identity, order_id: str) -> Order:
    """One's own order, or for admins anybody's."""
    require_person(caller)
    order = await orders.get(order_id)
    _require_mine(caller, order)
    return order


async def list_orders(
    orders: Orders,
    caller: Identity,
    *,
    user_id: str,
    everybody: bool,
    status: Status | None,
    limit: int,
    cursor: str,
) -> Page[Order]:
    """Newest first: one's own; for admins also one person's (`user_id`) or `everybody`'s."""
    require_person(caller)
    if everybody or user_id not in ("", caller.subject):
        require_admin(caller)
    whose = user_id if everybody else (user_id or caller.subject)
    return await orders.page(whose, status, page_limit(limit), cursor or None)


async def cancel(orders: Orders, clock: Clock, caller: Identity, order_id: str, reason: str) -> Order:
    """Cancel one's own order, or as admin anybody's, before shipping; twice by the same person is once."""
    require_person(caller)
    if reason and not _REASON.fullmatch(reason):
        raise invalid(
            "The reason is not valid.", ("reason", "must be UPPER_SNAKE of at most 64 letters, digits and _")
        )
    if reason in PLATFORM_REASONS:
        raise invalid("The reason is not valid.", ("reason", "is one that only the platform gives"))

    def act(order: Order) -> list[Payload]:
        _require_mine(caller, order)
        return order.cancel(clock.now(), reason or CUSTOMER_REQUEST, by=caller.subject)

    return await orders.change(order_id, act)


async def ship(orders: Orders, clock: Clock, caller: Identity, order_id: str) -> Order:
    """A confirmed order leaves the warehouse; admins only."""
    require_admin(caller)
    return await orders.change(order_id, lambda order: order.ship(clock.now()))


async def deliver(orders: Orders, clock: Clock, caller: Identity, order_id: str) -> Order:
    """A shipped order arrived; admins only."""
    require_admin(caller)
    return await orders.change(order_id, lambda order: order.deliver(clock.now()))


async def watch(
    orders: Orders, watchers: Watchers, caller: Identity, order_id: str
) -> AsyncGenerator[Order, None]:
    """The order at once and after every change, until it is DELIVERED or CANCELLED; close it when done."""
    await get(orders, caller, order_id)
    return watchers.follow(order_id, caller.subject)


async def issue_stream_ticket(orders: Orders, clock: Clock, caller: Identity, order_id: str) -> IssuedTicket:
    """Issue a ticket that lets its bearer watch this order once, as the caller may."""
    await get(orders, caller, order_id)
    return await issue_ticket(orders, clock, order_id, caller.token)


async def redeem_stream_ticket(orders: Orders, clock: Clock, order_id: str, ticket: str) -> str:
    """Use a ticket up and return the access token that it stands for: who has the ticket needs no other proof.

    Raises UNAUTHENTICATED (STREAM_TICKET_INVALID).
    """
    return await redeem_ticket(orders, clock, order_id, ticket)


async def payment_instruction(orders: Orders, caller: Identity, order_id: str) -> Order:
    """The order to charge for, with its payment token while it is payable: for the payments service only."""
    require_service(caller, "payments")
    return await orders.get(order_id)


async def stock_reserved(orders: Orders, clock: Clock, order_id: str, idempotency: IdempotencyRecord) -> None:
    """Products holds every line."""
    await orders.change(order_id, lambda order: order.stock_reserved(clock.now()), idempotency)


async def stock_rejected(
    orders: Orders, clock: Clock, news: StockRejected, idempotency: IdempotencyRecord
) -> None:
    """Products holds nothing, or no longer."""
    await orders.change(
        news.order_id, lambda order: order.stock_rejected(clock.now(), news.reason), idempotency
    )


async def payment_captured(
    orders: Orders, clock: Clock, news: PaymentCaptured, idempotency: IdempotencyRecord
) -> None:
    """The customer has paid."""
    await orders.change(
        news.order_id, lambda order: order.payment_captured(clock.now(), news.amount), idempotency
    )


async def payment_declined(
    orders: Orders, clock: Clock, news: PaymentDeclined, idempotency: IdempotencyRecord
) -> None:
    """The payment provider refused."""
    await orders.change(
        news.order_id, lambda order: order.payment_declined(clock.now(), news.reason), idempotency
    )


async def payment_refunded(
    orders: Orders, clock: Clock, news: PaymentRefunded, idempotency: IdempotencyRecord
) -> None:
    """Money went back to the customer."""
    await orders.change(
        news.order_id,
        lambda order: order.payment_refunded(clock.now(), news.refund_id, news.amount),
        idempotency,
    )


async def refund_failed(
    orders: Orders, clock: Clock, news: PaymentRefundFailed, idempotency: IdempotencyRecord
) -> None:
    """Book that a refund did not arrive."""
    await orders.change(
        news.order_id,
        lambda order: order.refund_failed(clock.now(), news.refund_id, news.amount),
        idempotency,
    )


async def payment_disputed(
    orders: Orders, clock: Clock, news: PaymentDisputed, idempotency: IdempotencyRecord
) -> None:
    """Ship nothing while the customer's bank disputes the charge."""
    await orders.change(
        news.order_id,
        lambda order: order.payment_disputed(clock.now(), news.dispute_id, news.amount),
        idempotency,
    )


async def dispute_closed(
    orders: Orders, clock: Clock, news: PaymentDisputeClosed, idempotency: IdempotencyRecord
) -> None:
    """Go on with an order whose dispute is decided."""
    await orders.change(
        news.order_id,
        lambda order: order.dispute_closed(clock.now(), news.dispute_id, news.amount, news.outcome),
        idempotency,
    )


async def erase_person(orders: Orders, clock: Clock, user_id: str, idempotency: IdempotencyRecord) -> None:
    """Forget whom all orders of a deleted account went to, and cancel those that were not shipped.

    Done in parts, each harmless to repeat; the inbox mark comes last, so that what breaks off is done again.
    """
    await orders.close_account(user_id, clock.now())
    cursor: str | None = None
    while True:
        page = await orders.page(user_id, None, _BATCH, cursor)
        for order in page.items:
            await orders.change(order.id, lambda order: order.erase_person(clock.now()))
        cursor = page.next_cursor
        if cursor is None:
            break
    orders.store.request_purge()
    await orders.inbox_record(idempotency)
    log.info("person_erased", extra={"user_id": user_id})


async def cancel_overdue(orders: Orders, clock: Clock, patience: timedelta) -> int:
    """Cancel what has waited `patience` or longer for stock or payment; how many. Two at once do no harm."""
    cancelled, cursor = 0, None

    async def give_up(order_id: str) -> None:
        nonlocal cancelled
        swept = await orders.change(order_id, lambda order: order.time_out(clock.now(), patience))
        cancelled += swept.cancel_reason == TIMED_OUT

    for _ in range(_SWEEP_PAGES):
        page = await orders.waiting_since(clock.now() - patience, _BATCH, cursor)
        await gather_logged([give_up(order.id) for order in page.items], log)
        cursor = page.next_cursor
        if cursor is None:
            break
    if cancelled:
        log.info("overdue_orders_cancelled", extra={"count": cancelled})
    return cancelled


def _require_mine(caller: Identity, order: Order) -> None:
    if order.user_id != caller.subject and not caller.is_admin:
        raise not_found("Order", "ORDER_NOT_FOUND")
