"""The use cases of stock: reading and correcting it, and reserving it for orders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from events.catalog import OrderCancelled, OrderConfirmed, OrderPlaced, Payload
from functions.products.service import ProductsService
from functions.products.stock.domain import AdjustmentKind, Reservation, Stock, StockAdjustment, Stocks
from functions.products.store import ReferencesChanged, adjustments, expired_reservations, with_references
from functions.runtime.clock import Clock
from functions.runtime.errors import invalid, not_found
from functions.runtime.formats import MAX_ADJUSTMENT_REASON
from functions.runtime.idempotency import fingerprint, idempotency_record, wrong_key
from functions.runtime.identity import Identity, require_admin
from functions.runtime.ids import new_id
from functions.runtime.inbox import InboxRecord
from functions.runtime.paging import all_pages, page_limit
from functions.runtime.store.port import Changes, Entity, Page, Ref, Store
from functions.runtime.sweeps import gather_logged
from functions.runtime.text import TextError, clean_line
from observability.failpoints import failpoints

log = logging.getLogger("shop.products")

_BATCH = 100
_SWEEP_PAGES = 10
"""A sweep releases at most 1,000 reservations; the next sweep continues with the rest."""

Transition = Callable[[Reservation, Stocks], list[Payload]]


@dataclass(frozen=True)
class SetStock:
    """Set the pieces on hand and the threshold. A `low_threshold` of None keeps the threshold.

    `version` is the version that the caller read, or None for any.
    """

    product_id: str
    on_hand: int
    low_threshold: int | None = None
    version: int | None = None


@dataclass(frozen=True)
class AdjustStock:
    """Add `delta` pieces. A negative `delta` removes pieces."""

    product_id: str
    delta: int
    reason: str
    idempotency_key: str | None = None

    def validated(self) -> AdjustStock:
        """Return the command with its reason normalised for storage; raises InvalidArgument."""
        violations = [*wrong_key(self.idempotency_key)]
        reason = self.reason
        try:
            reason = clean_line(reason, MAX_ADJUSTMENT_REASON)
        except TextError as error:
            violations.append(("reason", str(error)))
        if violations:
            raise invalid("The adjustment is not valid.", *violations)
        return replace(self, reason=reason)


@dataclass(frozen=True)
class ListAdjustments:
    """A page of a product's stock ledger."""

    product_id: str
    limit: int = 0
    cursor: str = ""


class StockService:
    """Use cases of stock. Collaborators are fixed at start; methods are safe to call concurrently.

    `reservation_time` is how long a reservation lasts. Every method that takes a product's id raises NotFound
    (PRODUCT_NOT_FOUND) if the product is unknown or the caller may not see it.
    """

    def __init__(self, store: Store, products: ProductsService, clock: Clock, *, reservation_time: timedelta) -> None:
        self._store = store
        self._products = products
        self._clock = clock
        self._reservation_time = reservation_time

    async def get(self, product_id: str, caller: Identity) -> Stock:
        """Return the stock of a product."""
        await self._products.get(product_id, caller)
        return _required(await self._store.get(Stock, product_id))

    async def get_many(self, product_ids: Sequence[str]) -> list[Stock]:
        """Return the stocks of products that the caller may see."""
        return list((await self._store.get_many(Stock, product_ids)).values())

    async def set(self, command: SetStock, caller: Identity) -> Stock:
        """Set the pieces on hand, record the difference in the ledger, and return the stock. Administrators only.

        Raises:
            InvalidArgument: a number out of bounds.
            Aborted: VERSION_MISMATCH.
            FailedPrecondition: STOCK_RESERVED.
        """
        require_admin(caller)
        product_id, adjustment_id, now = command.product_id, new_id("adj"), self._clock.now()

        def change(found: Sequence[Any]) -> Changes[Stock]:
            stock = _required(found[0])
            before = stock.on_hand
            events = stock.correct(command.on_hand, command.low_threshold, command.version, now)
            put: list[Entity] = [stock]
            if delta := stock.on_hand - before:
                kind = AdjustmentKind.CORRECTION
                put.append(
                    StockAdjustment(adjustment_id, product_id, kind, delta, stock.on_hand, "", caller.subject, now)
                )
            return Changes(stock, put, events=events)

        with failpoints("products.stock"):
            stock = await self._store.transact([Ref(Stock, product_id), Ref(StockAdjustment, adjustment_id)], change)
        log.info("stock_set", extra={"product_id": product_id, "on_hand": stock.on_hand})
        return stock

    async def adjust(self, command: AdjustStock, caller: Identity) -> StockAdjustment:
        """Add `delta` to the pieces on hand, and return the entry of the ledger. Administrators only.

        A repeated idempotency key within 24 hours returns the first entry.

        Raises:
            InvalidArgument: IDEMPOTENCY_KEY_REUSED, or invalid fields.
            FailedPrecondition: STOCK_RESERVED.
        """
        require_admin(caller)
        command = command.validated()
        product_id, delta, reason = command.product_id, command.delta, command.reason
        adjustment_id, now = new_id("adj"), self._clock.now()

        def change(found: Sequence[Any]) -> Changes[StockAdjustment]:
            stock = _required(found[0])
            events = stock.adjust(delta, now)
            kind = AdjustmentKind.ADJUSTMENT
            adjustment = StockAdjustment(
                adjustment_id, product_id, kind, delta, stock.on_hand, reason, caller.subject, now
            )
            return Changes(adjustment, [stock, adjustment], events=events)

        idempotency = None
        if command.idempotency_key is not None:
            request = fingerprint(f"{product_id}|{delta}|{reason}".encode())
            scope = f"stock:{caller.subject}"
            idempotency = idempotency_record(scope, command.idempotency_key, request, StockAdjustment)
        with failpoints("products.adjust"):
            adjustment = await self._store.transact(
                [Ref(Stock, product_id), Ref(StockAdjustment, adjustment_id)], change, idempotency=idempotency
            )
        log.info(
            "stock_adjusted", extra={"product_id": product_id, "delta": adjustment.delta, "on_hand": adjustment.on_hand}
        )
        return adjustment

    async def list_adjustments(self, query: ListAdjustments, caller: Identity) -> Page[StockAdjustment]:
        """Return a page of a product's stock ledger, newest first. Administrators only."""
        require_admin(caller)
        await self._products.get(query.product_id, caller)
        return await adjustments(self._store, query.product_id, page_limit(query.limit), query.cursor or None)

    async def on_order_placed(self, event: OrderPlaced, inbox: InboxRecord) -> None:
        """Reserve all lines of the order or none, and publish the result."""
        now = self._clock.now()
        await self._change(
            event.order_id,
            now,
            lambda reservation, stocks: reservation.place(event.lines, stocks, now, self._reservation_time),
            [line.product_id for line in event.lines],
            inbox,
        )

    async def on_order_confirmed(self, event: OrderConfirmed, inbox: InboxRecord) -> None:
        """Sell the reserved pieces of a confirmed order."""
        now = self._clock.now()
        await self._change(
            event.order_id,
            now,
            lambda reservation, stocks: reservation.confirm(stocks, now),
            event.product_ids,
            inbox,
        )

    async def on_order_cancelled(self, event: OrderCancelled, inbox: InboxRecord) -> None:
        """Release all pieces that the order reserved or bought. It can reserve nothing afterwards."""
        await self._change(event.order_id, self._clock.now(), Reservation.cancel, inbox=inbox)

    async def sweep(self) -> None:
        """Release expired reservations. Concurrent sweeps are safe."""
        now = self._clock.now()

        def expire(reservation: Reservation, stocks: Stocks) -> list[Payload]:
            return reservation.expire(stocks, now)

        async for expired in all_pages(partial(expired_reservations, self._store, now, _BATCH), _SWEEP_PAGES):
            await gather_logged([self._change(it.id, now, expire) for it in expired], log)

    async def _change(
        self,
        order_id: str,
        now: datetime,
        transition: Transition,
        product_ids: Sequence[str] = (),
        inbox: InboxRecord | None = None,
    ) -> None:
        """Change a reservation and the stocks of its lines in one transaction.

        `product_ids` are the products of the lines; if it is empty, the reservation is read to find them. If the
        transaction finds further products, it is repeated with their stocks.
        """
        if not product_ids:
            seen = await self._store.get(Reservation, order_id)
            product_ids = [line.product_id for line in seen.lines] if seen else []

        async def attempt(ids: list[str]) -> Reservation:
            refs = [Ref(Reservation, order_id), *(Ref(Stock, product_id) for product_id in ids)]
            with failpoints("products.reservation"):
                return await self._store.transact(refs, _applied(order_id, now, transition, ids), idempotency=inbox)

        reservation = await with_references(dict.fromkeys(product_ids), attempt)
        log.info("reservation", extra={"order_id": order_id, "state": reservation.state.value})


def _applied(
    order_id: str, now: datetime, transition: Transition, ids: Sequence[str]
) -> Callable[[Sequence[Any]], Changes[Reservation]]:
    def change(found: Sequence[Any]) -> Changes[Reservation]:
        reservation = found[0] or Reservation(order_id, created_at=now, expires_at=now)
        stocks: dict[str, Stock | None] = dict(zip(ids, found[1:], strict=True))
        needed = [line.product_id for line in reservation.lines]
        if not stocks.keys() >= set(needed):
            raise ReferencesChanged(needed)
        before = [replace(entity) for entity in (reservation, *filter(None, stocks.values()))]
        events = transition(reservation, stocks)
        after = [reservation, *filter(None, stocks.values())]
        changed = [entity for entity, old in zip(after, before, strict=True) if entity != old]
        return Changes(reservation, changed, events=events)

    return change


def _required(stock: Stock | None) -> Stock:
    if stock is None:
        raise not_found("Product", "PRODUCT_NOT_FOUND")
    return stock
