"""The use cases of stock: reading and correcting it, and what orders do to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from events.catalog import OrderPlaced, Payload
from functions.products.service import ATTEMPTS, Moved, get_product
from functions.products.stock import (
    AdjustmentKind,
    Reservation,
    Stock,
    StockAdjustment,
    Stocks,
)
from functions.products.store import due, ledger
from functions.runtime.clock import Clock
from functions.runtime.concurrency import gather_logged
from functions.runtime.errors import invalid, not_found
from functions.runtime.formats import MAX_ADJUSTMENT_REASON
from functions.runtime.idempotency import fingerprint, idempotency_record, wrong_key
from functions.runtime.identity import Identity, require_admin
from functions.runtime.ids import new_id
from functions.runtime.paging import page_limit
from functions.runtime.store.port import Changes, Entity, IdempotencyRecord, Page, Ref, Store
from functions.runtime.text import TextError, clean_line
from observability.failpoints import failpoint

log = logging.getLogger("shop.products")

_AT_ONCE = 100
_SWEEP_PAGES = 10  # at most 1,000 reservations a tick: the next tick takes the rest

Step = Callable[[Reservation, Stocks], list[Payload]]


async def get_stock(store: Store, caller: Identity, product_id: str) -> Stock:
    """The stock of a product that the caller may see. Raises NOT_FOUND."""
    await get_product(store, caller, product_id)
    return _known(await store.get(Stock, product_id))


async def set_stock(
    store: Store,
    clock: Clock,
    caller: Identity,
    product_id: str,
    on_hand: int,
    *,
    low_threshold: int | None = None,
    version: int | None = None,
) -> Stock:
    """Set what is on the shelf, and enter the difference in the ledger; `version` is what the caller had read.

    See `Stock.correct` for what it raises, and NOT_FOUND.
    """
    require_admin(caller)
    entry_id, now = new_id("adj"), clock.now()

    def change(found: Sequence[Any]) -> Changes[Stock]:
        stock = _known(found[0])
        before = stock.on_hand
        events = stock.correct(on_hand, low_threshold, version, now)
        delta = on_hand - before
        put: list[Entity] = [stock]
        if delta:
            kind = AdjustmentKind.CORRECTION
            put.append(StockAdjustment(entry_id, product_id, kind, delta, on_hand, "", caller.subject, now))
        return Changes(stock, put, events=events)

    failpoint("products.stock.before")
    stock = await store.transact([Ref(Stock, product_id), Ref(StockAdjustment, entry_id)], change)
    failpoint("products.stock.after")
    log.info("stock_set", extra={"product_id": product_id, "on_hand": on_hand})
    return stock


async def adjust_stock(
    store: Store,
    clock: Clock,
    caller: Identity,
    product_id: str,
    *,
    delta: int,
    reason: str,
    key: str | None = None,
) -> StockAdjustment:
    """Change what is on the shelf by a difference; return the ledger's entry.

    The same key and request within 24 hours returns the first entry.

    Raises:
        InvalidArgument: also IDEMPOTENCY_KEY_REUSED.
        NotFound: PRODUCT_NOT_FOUND.
        FailedPrecondition: STOCK_RESERVED.
    """
    require_admin(caller)
    reason = _checked_reason(reason, key)
    entry_id, now = new_id("adj"), clock.now()

    def change(found: Sequence[Any]) -> Changes[StockAdjustment]:
        stock = _known(found[0])
        events = stock.adjust(delta, now)
        kind = AdjustmentKind.ADJUSTMENT
        entry = StockAdjustment(entry_id, product_id, kind, delta, stock.on_hand, reason, caller.subject, now)
        return Changes(entry, [stock, entry], events=events)

    idempotency = None
    if key is not None:
        wanted = fingerprint(f"{product_id}|{delta}|{reason}".encode())
        idempotency = idempotency_record(f"stock:{caller.subject}", key, wanted, StockAdjustment)
    failpoint("products.adjust.before")
    entry = await store.transact(
        [Ref(Stock, product_id), Ref(StockAdjustment, entry_id)], change, idempotency=idempotency
    )
    failpoint("products.adjust.after")
    log.info(
        "stock_adjusted", extra={"product_id": product_id, "delta": entry.delta, "on_hand": entry.on_hand}
    )
    return entry


async def list_adjustments(
    store: Store, caller: Identity, product_id: str, limit: int, cursor: str
) -> Page[StockAdjustment]:
    """Return a page of a product's stock ledger, newest first; admins only. Raises NOT_FOUND."""
    require_admin(caller)
    await get_product(store, caller, product_id)
    return await ledger(store, product_id, page_limit(limit), cursor or None)


def _checked_reason(reason: str, key: str | None) -> str:
    wrong = [*wrong_key(key)]
    try:
        reason = clean_line(reason, MAX_ADJUSTMENT_REASON)
    except TextError as error:
        wrong.append(("reason", str(error)))
    if wrong:
        raise invalid("The adjustment is not valid.", *wrong)
    return reason


async def reserve(
    store: Store, clock: Clock, hold: timedelta, order: OrderPlaced, idempotency: IdempotencyRecord
) -> Reservation:
    """An order was placed: hold all of its lines for `hold`, or none, and say which."""
    now = clock.now()
    return await _change(
        store,
        now,
        order.order_id,
        lambda reservation, stocks: reservation.place(order.lines, stocks, now, hold),
        [line.product_id for line in order.lines],
        idempotency,
    )


async def commit(store: Store, clock: Clock, order_id: str, idempotency: IdempotencyRecord) -> Reservation:
    """An order was confirmed: what it holds is sold."""
    now = clock.now()
    return await _change(
        store, now, order_id, lambda it, stocks: it.confirm(stocks, now), idempotency=idempotency
    )


async def release(store: Store, clock: Clock, order_id: str, idempotency: IdempotencyRecord) -> Reservation:
    """An order was cancelled: what it holds or bought goes back, and it will never hold anything again."""
    return await _change(store, clock.now(), order_id, Reservation.cancel, idempotency=idempotency)


async def expire(store: Store, clock: Clock) -> int:
    """Let go of what was held too long; how many reservations. Several at a time do no harm."""
    now, let_go, cursor = clock.now(), 0, None
    for _ in range(_SWEEP_PAGES):
        late = await due(store, now, _AT_ONCE, cursor)
        steps = [_change(store, now, it.id, lambda it, stocks: it.expire(stocks, now)) for it in late.items]
        await gather_logged(steps, log)
        let_go, cursor = let_go + len(steps), late.next_cursor
        if cursor is None:
            break
    return let_go


async def _change(
    store: Store,
    now: datetime,
    order_id: str,
    step: Step,
    product_ids: Sequence[str] = (),
    idempotency: IdempotencyRecord | None = None,
) -> Reservation:
    """Take one step with a reservation and the stocks of its lines in one transaction.

    The lines are in the reservation, which is read before to know the stocks. Lines never change once they
    are there, so what can have happened in between is that they came: then the step is prepared again.
    """
    seen = await store.get(Reservation, order_id)
    ids = _unique(product_ids, seen)
    for attempt in range(ATTEMPTS):
        refs = [Ref(Reservation, order_id), *(Ref(Stock, product_id) for product_id in ids)]
        try:
            failpoint("products.reservation.before")
            result = await store.transact(refs, _stepped(order_id, now, step, ids), idempotency=idempotency)
            failpoint("products.reservation.after")
        except Moved as moved:
            if attempt + 1 == ATTEMPTS:
                raise
            ids = moved.needs
        else:
            log.info("reservation", extra={"order_id": order_id, "state": result.state.value})
            return result
    raise AssertionError("unreachable")


def _stepped(
    order_id: str, now: datetime, step: Step, ids: Sequence[str]
) -> Callable[[Sequence[Any]], Changes[Reservation]]:
    def change(found: Sequence[Any]) -> Changes[Reservation]:
        reservation = found[0] or Reservation(order_id, created_at=now, expires_at=now)
        stocks: dict[str, Stock | None] = dict(zip(ids, found[1:], strict=True))
        if not stocks.keys() >= {line.product_id for line in reservation.lines}:
            raise Moved(_unique(ids, reservation))
        before = [replace(entity) for entity in (reservation, *filter(None, stocks.values()))]
        events = step(reservation, stocks)
        after = [reservation, *filter(None, stocks.values())]
        changed = [entity for entity, old in zip(after, before, strict=True) if entity != old]
        return Changes(reservation, changed, events=events)

    return change


def _unique(product_ids: Sequence[str], reservation: Reservation | None) -> list[str]:
    held = [line.product_id for line in reservation.lines] if reservation else []
    return list(dict.fromkeys([*product_ids, *held]))


def _known(stock: Stock | None) -> Stock:
    if stock is None:
        raise not_found("Product", "PRODUCT_NOT_FOUND")
    return stock
