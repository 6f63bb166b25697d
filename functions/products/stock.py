"""Stock, and what orders hold of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from events.catalog import Line, Payload, StockLow, StockRejected, StockReserved
from functions.runtime.errors import aborted, failed_precondition, invalid
from functions.runtime.formats import MAX_ON_HAND

DEFAULT_LOW_THRESHOLD = 5
LOW_TOLD_EVERY = timedelta(days=1)
"""A product that gets low again within this time is not told of again, unless it was filled up."""
OUT_OF_STOCK = "OUT_OF_STOCK"
PRODUCT_UNAVAILABLE = "PRODUCT_UNAVAILABLE"
RESERVATION_EXPIRED = "RESERVATION_EXPIRED"


@dataclass
class Stock:
    """The stock of one product; `id` is the product's. Always 0 <= reserved <= on_hand.

    `sku` and `for_sale` are copies of the product's, written with it, so that reserving reads stock only.
    `low_told_at` is when the administrators were told that it is low; None once an administrator filled it up.
    """

    id: str
    sku: str
    for_sale: bool
    on_hand: int = 0
    reserved: int = 0
    low_threshold: int = DEFAULT_LOW_THRESHOLD
    low_told_at: datetime | None = None
    version: int = 0

    @property
    def available(self) -> int:
        """What another order may hold."""
        return self.on_hand - self.reserved

    def correct(
        self, on_hand: int, low_threshold: int | None, version: int | None, now: datetime
    ) -> list[Payload]:
        """Correct what is on the shelf; None leaves the threshold, or asks for no version.

        Raises INVALID_ARGUMENT, ABORTED (VERSION_MISMATCH), FAILED_PRECONDITION (STOCK_RESERVED).
        """
        wanted = {"on_hand": on_hand, "low_threshold": 0 if low_threshold is None else low_threshold}
        wrong = [(name, f"must be between 0 and {MAX_ON_HAND}") for name, n in wanted.items() if not _fits(n)]
        if wrong:
            raise invalid("The stock is not valid.", *wrong)
        if version is not None and version != self.version:
            raise aborted("VERSION_MISMATCH", "The stock was changed in the meantime: read it again.")
        self._require_reserved(on_hand)
        was_low = self._low
        self.on_hand = on_hand
        self.low_threshold = self.low_threshold if low_threshold is None else low_threshold
        return self._filled_up_or_fell(was_low, now)

    def adjust(self, delta: int, now: datetime) -> list[Payload]:
        """Put `delta` pieces on the shelf, or take them off it.

        Raises INVALID_ARGUMENT, FAILED_PRECONDITION (STOCK_RESERVED).
        """
        if delta == 0 or not -MAX_ON_HAND <= delta <= MAX_ON_HAND:
            message = f"must be between -{MAX_ON_HAND} and {MAX_ON_HAND}, and not 0"
            raise invalid("The adjustment is not valid.", ("delta", message))
        if self.on_hand + delta > MAX_ON_HAND:
            raise invalid("The adjustment is not valid.", ("delta", f"makes more than {MAX_ON_HAND} on hand"))
        self._require_reserved(self.on_hand + delta)
        was_low = self._low
        self.on_hand += delta
        return self._filled_up_or_fell(was_low, now)

    def hold(self, quantity: int, now: datetime) -> list[Payload]:
        """Keep pieces for an order; raises FAILED_PRECONDITION (OUT_OF_STOCK)."""
        if quantity > self.available:
            raise failed_precondition(OUT_OF_STOCK, "There is not enough in stock.")
        was_low = self._low
        self.reserved += quantity
        return self._fell(was_low, now)

    def let_go(self, quantity: int) -> None:
        """Make held pieces available again."""
        self.reserved -= quantity

    def sell(self, quantity: int) -> None:
        """Held pieces leave the shelf."""
        self.on_hand -= quantity
        self.reserved -= quantity

    def take_back(self, quantity: int) -> None:
        """Sold pieces return to the shelf."""
        self.on_hand += quantity

    @property
    def _low(self) -> bool:
        return self.available < self.low_threshold

    def _require_reserved(self, on_hand: int) -> None:
        if on_hand < self.reserved or on_hand < 0:
            text = f"{self.on_hand} pieces are on hand, of which {self.reserved} are reserved for orders."
            raise failed_precondition("STOCK_RESERVED", text)

    def _filled_up_or_fell(self, was_low: bool, now: datetime) -> list[Payload]:
        # Only an administrator's correction counts as filling up: an order that is declined or cancelled gives
        # pieces back, too, and anybody can repeat that.
        if self.available >= self.low_threshold + max(1, self.low_threshold // 2):
            self.low_told_at = None
        return self._fell(was_low, now)

    def _fell(self, was_low: bool, now: datetime) -> list[Payload]:
        told = self.low_told_at is not None and now - self.low_told_at < LOW_TOLD_EVERY
        if was_low or not self._low or told:
            return []
        self.low_told_at = now
        return [
            StockLow(product_id=self.id, sku=self.sku, available=self.available, threshold=self.low_threshold)
        ]


class AdjustmentKind(StrEnum):
    """How stock was changed by hand."""

    ADJUSTMENT = "ADJUSTMENT"
    """By a difference."""
    CORRECTION = "CORRECTION"
    """By setting what is on hand."""


@dataclass
class StockAdjustment:
    """One entry of a product's stock ledger: what an administrator changed by hand.

    `on_hand` is what was there afterwards. Entries are never changed.
    """

    id: str
    product_id: str
    kind: AdjustmentKind
    delta: int
    on_hand: int
    reason: str
    by: str
    at: datetime
    version: int = 0


Stocks = Mapping[str, Stock | None]
"""The stocks of an order's lines by product id, None where there is no such product."""


class State(StrEnum):
    """Where a reservation stands."""

    NEW = "NEW"
    """Nothing is known of the order yet; never stored."""
    AWAITED = "AWAITED"
    """The order is confirmed, but its lines have not arrived: they will be taken and sold at once."""
    RESERVED = "RESERVED"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    """Nothing is held any more: cancelled, which is final, or expired, which a confirmation may revive."""
    REJECTED = "REJECTED"


@dataclass
class Held:
    """Pieces of one product."""

    product_id: str
    quantity: int


@dataclass
class Reservation:
    """What one order holds; `id` is the order's. Events may come in any order and any number of times."""

    id: str
    created_at: datetime
    expires_at: datetime
    state: State = State.NEW
    lines: list[Held] = field(default_factory=list)
    cancelled: bool = False
    version: int = 0

    def place(self, lines: Sequence[Line], stocks: Stocks, now: datetime, hold: timedelta) -> list[Payload]:
        """The order was placed: hold all of its lines for `hold`, or none."""
        if self.state not in {State.NEW, State.AWAITED}:
            return []
        paid = self.state is State.AWAITED
        self.lines = aggregated(lines)
        self.expires_at = now + hold
        gone = [n for n, stock in stocks.items() if stock is None or not (stock.for_sale or paid)]
        if gone:
            return self._reject(PRODUCT_UNAVAILABLE, gone)
        if short := self._short(stocks):
            return self._reject(OUT_OF_STOCK, short)
        events = self._hold(stocks, now)
        if paid:
            return events + self._sell(stocks)
        return [StockReserved(order_id=self.id, expires_at=self.expires_at), *events]

    def confirm(self, stocks: Stocks, now: datetime) -> list[Payload]:
        """The order is paid: what it holds is sold.

        What has expired is taken again where there is enough; else the order is told, and ends with a refund.
        """
        if self.state is State.NEW:
            self.state = State.AWAITED
        elif self.state is State.RESERVED:
            return self._sell(stocks)
        elif self.state is State.RELEASED and not self.cancelled:
            if short := self._short(stocks):
                return self._reject(RESERVATION_EXPIRED, short)
            return self._hold(stocks, now) + self._sell(stocks)
        return []

    def cancel(self, stocks: Stocks) -> list[Payload]:
        """The order ended: everything goes back, and nothing will ever be held for it."""
        if self.state is State.RESERVED:
            self._let_go(stocks)
        elif self.state is State.COMMITTED:
            for stock, quantity in self._pairs(stocks):
                stock.take_back(quantity)
        self.state, self.cancelled = State.RELEASED, True
        return []

    def expire(self, stocks: Stocks, now: datetime) -> list[Payload]:
        """The time is over: let go, and tell the order."""
        if self.state is not State.RESERVED or now < self.expires_at:
            return []
        self._let_go(stocks)
        self.state = State.RELEASED
        return [self._rejected(RESERVATION_EXPIRED, [line.product_id for line in self.lines])]

    def _pairs(self, stocks: Stocks) -> list[tuple[Stock, int]]:
        found = [(stocks.get(line.product_id), line.quantity) for line in self.lines]
        return [(stock, quantity) for stock, quantity in found if stock is not None]

    def _short(self, stocks: Stocks) -> list[str]:
        return [stock.id for stock, quantity in self._pairs(stocks) if stock.available < quantity]

    def _hold(self, stocks: Stocks, now: datetime) -> list[Payload]:
        self.state = State.RESERVED
        return [event for stock, quantity in self._pairs(stocks) for event in stock.hold(quantity, now)]

    def _sell(self, stocks: Stocks) -> list[Payload]:
        self.state = State.COMMITTED
        for stock, quantity in self._pairs(stocks):
            stock.sell(quantity)
        return []

    def _let_go(self, stocks: Stocks) -> None:
        for stock, quantity in self._pairs(stocks):
            stock.let_go(quantity)

    def _reject(self, reason: str, product_ids: list[str]) -> list[Payload]:
        self.state = State.REJECTED
        return [self._rejected(reason, product_ids)]

    def _rejected(self, reason: str, product_ids: list[str]) -> StockRejected:
        return StockRejected(order_id=self.id, reason=reason, product_ids=product_ids)


def aggregated(lines: Sequence[Line]) -> list[Held]:
    """One entry for each product, in the order of its first line."""
    wanted: dict[str, int] = {}
    for line in lines:
        wanted[line.product_id] = wanted.get(line.product_id, 0) + line.quantity
    return [Held(product_id, quantity) for product_id, quantity in wanted.items()]


def _fits(number: int) -> bool:
    return 0 <= number <= MAX_ON_HAND
