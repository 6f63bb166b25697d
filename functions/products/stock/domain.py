"""The entities of stock: pieces on hand, the ledger of adjustments, and reservations for orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from events.catalog import Line, Payload, StockLow, StockRejected, StockReserved
from functions.runtime.errors import aborted, failed_precondition, invalid
from functions.runtime.formats import MAX_ON_HAND

DEFAULT_LOW_THRESHOLD = 5
LOW_STOCK_INTERVAL = timedelta(days=1)
"""Low stock of a product is announced at most once in this time, unless the product was restocked."""
OUT_OF_STOCK = "OUT_OF_STOCK"
PRODUCT_UNAVAILABLE = "PRODUCT_UNAVAILABLE"
RESERVATION_EXPIRED = "RESERVATION_EXPIRED"


@dataclass
class Stock:
    """The stock of one product. `id` is the product's id. Always 0 <= reserved <= on_hand.

    `sku` and `for_sale` are copied from the product and written together with it, so that a reservation reads only the
    stock. `low_told_at` is the time of the last announcement of low stock, or None after an administrator restocked.
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
        """The pieces that another order may reserve."""
        return self.on_hand - self.reserved

    def correct(self, on_hand: int, low_threshold: int | None, version: int | None, now: datetime) -> list[Payload]:
        """Set the pieces on hand and the threshold.

        A `low_threshold` of None keeps the threshold. A `version` of None skips the version check.

        Raises:
            InvalidArgument: a number out of bounds.
            Aborted: VERSION_MISMATCH.
            FailedPrecondition: STOCK_RESERVED.
        """
        fields = {"on_hand": on_hand, "low_threshold": low_threshold or 0}
        violations = [
            (name, f"must be between 0 and {MAX_ON_HAND}")
            for name, number in fields.items()
            if not 0 <= number <= MAX_ON_HAND
        ]
        if violations:
            raise invalid("The stock is not valid.", *violations)
        if version is not None and version != self.version:
            raise aborted("VERSION_MISMATCH", "The stock was changed in the meantime: read it again.")
        self._require_reserved(on_hand)
        was_low = self._low
        self.on_hand = on_hand
        self.low_threshold = self.low_threshold if low_threshold is None else low_threshold
        return self._restocked(was_low, now)

    def adjust(self, delta: int, now: datetime) -> list[Payload]:
        """Add `delta` pieces. A negative `delta` removes pieces.

        Raises:
            InvalidArgument: a number out of bounds.
            FailedPrecondition: STOCK_RESERVED.
        """
        if delta == 0 or not -MAX_ON_HAND <= delta <= MAX_ON_HAND:
            message = f"must be between -{MAX_ON_HAND} and {MAX_ON_HAND}, and not 0"
            raise invalid("The adjustment is not valid.", ("delta", message))
        if self.on_hand + delta > MAX_ON_HAND:
            raise invalid("The adjustment is not valid.", ("delta", f"makes more than {MAX_ON_HAND} on hand"))
        self._require_reserved(self.on_hand + delta)
        was_low = self._low
        self.on_hand += delta
        return self._restocked(was_low, now)

    def reserve(self, quantity: int, now: datetime) -> list[Payload]:
        """Reserve pieces for an order; raises FailedPrecondition (OUT_OF_STOCK)."""
        if quantity > self.available:
            raise failed_precondition(OUT_OF_STOCK, "There is not enough in stock.")
        was_low = self._low
        self.reserved += quantity
        return self._announce_low(was_low, now)

    def release(self, quantity: int) -> None:
        """Make reserved pieces available again."""
        self.reserved -= quantity

    def sell(self, quantity: int) -> None:
        """Remove reserved pieces that were sold."""
        self.on_hand -= quantity
        self.reserved -= quantity

    def take_back(self, quantity: int) -> None:
        """Return the sold pieces of a cancelled order to stock."""
        self.on_hand += quantity

    @property
    def _low(self) -> bool:
        return self.available < self.low_threshold

    def _require_reserved(self, on_hand: int) -> None:
        if on_hand < self.reserved or on_hand < 0:
            text = f"{self.on_hand} pieces are on hand, of which {self.reserved} are reserved for orders."
            raise failed_precondition("STOCK_RESERVED", text)

    def _restocked(self, was_low: bool, now: datetime) -> list[Payload]:
        # Only an administrator's change counts as restocking. A declined or cancelled order also releases pieces, but a
        # customer could repeat that to trigger mails.
        if self.available >= self.low_threshold + max(1, self.low_threshold // 2):
            self.low_told_at = None
        return self._announce_low(was_low, now)

    def _announce_low(self, was_low: bool, now: datetime) -> list[Payload]:
        recently = self.low_told_at is not None and now - self.low_told_at < LOW_STOCK_INTERVAL
        if was_low or not self._low or recently:
            return []
        self.low_told_at = now
        return [StockLow(product_id=self.id, sku=self.sku, available=self.available, threshold=self.low_threshold)]


class AdjustmentKind(StrEnum):
    """How an administrator changed stock."""

    ADJUSTMENT = "ADJUSTMENT"
    """Added or removed a number of pieces."""
    CORRECTION = "CORRECTION"
    """Set the pieces on hand."""


@dataclass
class StockAdjustment:
    """One entry of a product's stock ledger: a change by an administrator. Entries never change.

    `on_hand` is the number of pieces after the change.
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
"""The stocks of an order's lines by product id; None for an unknown product."""


class State(StrEnum):
    """The state of a reservation."""

    NEW = "NEW"
    """No event of the order has arrived yet; never stored."""
    AWAITED = "AWAITED"
    """The order is confirmed, but order.placed with its lines has not arrived. The lines will be reserved and sold at
    once."""
    RESERVED = "RESERVED"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    """Nothing is reserved any more. Cancellation is final; after expiry, a confirmation may reserve the lines again."""
    REJECTED = "REJECTED"


@dataclass
class ReservedLine:
    """The number of pieces of one product that an order reserves."""

    product_id: str
    quantity: int


@dataclass
class Reservation:
    """The stock that one order reserves. `id` is the order's id. Its events may arrive in any order and repeatedly."""

    id: str
    created_at: datetime
    expires_at: datetime
    state: State = State.NEW
    lines: list[ReservedLine] = field(default_factory=list)
    cancelled: bool = False
    version: int = 0

    def place(self, lines: Sequence[Line], stocks: Stocks, now: datetime, reservation_time: timedelta) -> list[Payload]:
        """Reserve all lines of a placed order for `reservation_time`, or none of them."""
        if self.state not in {State.NEW, State.AWAITED}:
            return []
        paid = self.state is State.AWAITED
        self.lines = _by_product(lines)
        self.expires_at = now + reservation_time
        unavailable = [
            product_id for product_id, stock in stocks.items() if stock is None or not (stock.for_sale or paid)
        ]
        if unavailable:
            return self._reject(PRODUCT_UNAVAILABLE, unavailable)
        if short := self._short(stocks):
            return self._reject(OUT_OF_STOCK, short)
        events = self._reserve(stocks, now)
        if paid:
            return events + self._sell(stocks)
        return [StockReserved(order_id=self.id, expires_at=self.expires_at), *events]

    def confirm(self, stocks: Stocks, now: datetime) -> list[Payload]:
        """Sell the reserved pieces of a confirmed order.

        An expired reservation is renewed if there is enough stock. Otherwise the order is rejected and then refunded.
        """
        if self.state is State.NEW:
            self.state = State.AWAITED
        elif self.state is State.RESERVED:
            return self._sell(stocks)
        elif self.state is State.RELEASED and not self.cancelled:
            if short := self._short(stocks):
                return self._reject(RESERVATION_EXPIRED, short)
            return self._reserve(stocks, now) + self._sell(stocks)
        return []

    def cancel(self, stocks: Stocks) -> list[Payload]:
        """Release all pieces of a cancelled order. The order can reserve nothing afterwards."""
        if self.state is State.RESERVED:
            self._release(stocks)
        elif self.state is State.COMMITTED:
            for stock, quantity in self._pairs(stocks):
                stock.take_back(quantity)
        self.state, self.cancelled = State.RELEASED, True
        return []

    def expire(self, stocks: Stocks, now: datetime) -> list[Payload]:
        """Release an expired reservation, and reject the order."""
        if self.state is not State.RESERVED or now < self.expires_at:
            return []
        self._release(stocks)
        self.state = State.RELEASED
        return [self._rejected(RESERVATION_EXPIRED, [line.product_id for line in self.lines])]

    def _pairs(self, stocks: Stocks) -> list[tuple[Stock, int]]:
        found = [(stocks.get(line.product_id), line.quantity) for line in self.lines]
        return [(stock, quantity) for stock, quantity in found if stock is not None]

    def _short(self, stocks: Stocks) -> list[str]:
        return [stock.id for stock, quantity in self._pairs(stocks) if stock.available < quantity]

    def _reserve(self, stocks: Stocks, now: datetime) -> list[Payload]:
        self.state = State.RESERVED
        return [event for stock, quantity in self._pairs(stocks) for event in stock.reserve(quantity, now)]

    def _sell(self, stocks: Stocks) -> list[Payload]:
        self.state = State.COMMITTED
        for stock, quantity in self._pairs(stocks):
            stock.sell(quantity)
        return []

    def _release(self, stocks: Stocks) -> None:
        for stock, quantity in self._pairs(stocks):
            stock.release(quantity)

    def _reject(self, reason: str, product_ids: list[str]) -> list[Payload]:
        self.state = State.REJECTED
        return [self._rejected(reason, product_ids)]

    def _rejected(self, reason: str, product_ids: list[str]) -> StockRejected:
        return StockRejected(order_id=self.id, reason=reason, product_ids=product_ids)


def _by_product(lines: Sequence[Line]) -> list[ReservedLine]:
    """Return one line for each product, in the order of first occurrence, with the quantities added up."""
    quantities: dict[str, int] = {}
    for line in lines:
        quantities[line.product_id] = quantities.get(line.product_id, 0) + line.quantity
    return [ReservedLine(product_id, quantity) for product_id, quantity in quantities.items()]
