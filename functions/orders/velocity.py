"""Velocity limits: how fast orders may be placed, and how much stock unpaid orders may hold, by account, device and
network address.

They prevent inventory denial (orders that reserve stock and are never paid) and card testing (orders that find out
which cards work). A rate is a leaky bucket: each order or decline adds one, and an hour's budget drains in an hour.
The limits of an account and of its device grow with the number of orders that the account has paid.

A device is what the users service recognised at login by a device token. Orders without one are counted by account and
address alone, because customers behind one address are not one device.

The records commit with the order. An account and a device have one record each. An address has `SHARDS` records,
chosen by account, so that its accounts do not all contend for one record. Events do not update the records. Instead,
the outcome of a record's open orders is looked up when it counts the next order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from zlib import crc32

from functions.orders.domain import Order, Status
from functions.runtime.errors import Code, ServiceError, exhausted
from functions.runtime.networks import network_key

HOUR = 3600.0
SHARDS = 8
DECLINES = frozenset({"PAYMENT_DECLINED", "INSUFFICIENT_FUNDS"})
ACCOUNTS_KEPT = timedelta(days=365)
OTHERS_KEPT = timedelta(hours=2)
MAX_OPEN = 400
"""The maximum number of tracked open orders of a record: ten times the highest allowed value of a device."""
MAX_HELD_LINES = 2_000
"""The maximum number of lines of these orders, which bounds the size of a record to 100 KB."""
MAX_GROWTH = 10
"""A customer's limits are at most this many times those of a new account."""
PAID_ORDERS_PER_GROWTH = 5
"""Each time a customer has paid this many orders, every limit grows by the limit of a new account."""
REASONS = ("TOO_MANY_ORDERS", "TOO_MANY_UNPAID_ORDERS", "TOO_MANY_UNPAID_PIECES", "TOO_MANY_DECLINES")
"""The reasons of refusals."""


@dataclass(frozen=True)
class Limits:
    """The limits of one record. 0 means no limit.

    `stock_share` is the share of a product's stock that its unpaid orders may hold.
    """

    orders_per_hour: int = 0
    declines_per_hour: int = 0
    unpaid_orders: int = 0
    stock_share: float = 0.0

    @property
    def track_orders(self) -> bool:
        """Whether any limit depends on the outcome of earlier orders. If not, they are not looked up."""
        return bool(self.unpaid_orders or self.declines_per_hour or self.stock_share)

    def times(self, factor: float) -> Limits:
        """Return these limits multiplied by `factor`.

        `factor` is above 1 for a customer with enough paid orders, and below 1 for one shard of an address.
        `stock_share` is not scaled: `_require_stock` applies the growth of a customer, and counts all shards of an
        address together.
        """

        def scaled(number: int) -> int:
            return max(1, int(number * factor)) if number else 0

        return replace(
            self,
            orders_per_hour=scaled(self.orders_per_hour),
            declines_per_hour=scaled(self.declines_per_hour),
            unpaid_orders=scaled(self.unpaid_orders),
        )


@dataclass(frozen=True)
class VelocityLimits:
    """The limits of a new account, of a device with such an account, and of an address.

    Unpaid orders may always hold `unpaid_pieces` of a product, even if that exceeds `stock_share`.
    """

    account: Limits = Limits(60, 10, 10, 0.5)
    device: Limits = Limits(300, 30, 30, 0.5)
    address: Limits = Limits(600, 60, 200, 0.75)
    unpaid_pieces: int = 5

    @property
    def any(self) -> bool:
        """Whether there is any limit."""
        return self != VelocityLimits(Limits(), Limits(), Limits(), self.unpaid_pieces)


@dataclass
class LeakyBucket:
    """A count that drains over time. `level` is the count at the time `at`."""

    level: float = 0.0
    at: datetime | None = None

    def drain(self, per_hour: int, now: datetime) -> float:
        """Drain the bucket up to `now`, and return its level."""
        elapsed = max(0.0, (now - self.at).total_seconds()) if self.at else 0.0
        self.level = max(0.0, self.level - elapsed * per_hour / HOUR)
        self.at = now if self.at is None else max(self.at, now)
        return self.level

    def add(self, per_hour: int, now: datetime) -> None:
        """Count one more."""
        self.drain(per_hour, now)
        self.level += 1.0


@dataclass
class VelocityRecord:
    """The counts of an account (`id` is the user's id), of a device, or of one shard of an address.

    `open` are the orders that were unpaid when last looked up, and `held` their pieces by order and product; `paid`
    counts the paid orders.
    """

    id: str
    updated_at: datetime
    orders: LeakyBucket = field(default_factory=LeakyBucket)
    declines: LeakyBucket = field(default_factory=LeakyBucket)
    open: list[str] = field(default_factory=list)
    held: dict[str, dict[str, int]] = field(default_factory=dict)
    paid: int = 0
    version: int = 0

    @property
    def growth(self) -> int:
        """The factor that multiplies the limits of a new account for this customer."""
        return min(MAX_GROWTH, 1 + self.paid // PAID_ORDERS_PER_GROWTH)

    @property
    def expires_at(self) -> datetime:
        """The time from which the record is no longer needed."""
        return self.updated_at + (ACCOUNTS_KEPT if self.id.startswith("usr_") else OTHERS_KEPT)

    def close_ended(self, orders: Mapping[str, Order], declines_per_hour: int) -> None:
        """Remove orders that are no longer payable from the open ones, and count the paid and the declined ones."""
        ended = [orders[key] for key in self.open if key in orders and not orders[key].payable]
        closed = {order.id for order in ended}
        self.open = [key for key in self.open if key not in closed]
        self.held = {key: pieces for key, pieces in self.held.items() if key not in closed}
        self.paid += sum(any(entry.status is Status.CONFIRMED for entry in order.timeline) for order in ended)
        for at in sorted(order.moved_at for order in ended if order.cancel_reason in DECLINES):
            self.declines.add(declines_per_hour, at)

    def pieces(self) -> Counter[str]:
        """Return how many pieces of each product the open orders hold."""
        total: Counter[str] = Counter()
        for pieces in self.held.values():
            total.update(pieces)
        return total


@dataclass(frozen=True)
class Origin:
    """Who places an order: the ids of the records that count it. `shards` are all records of its address."""

    account: str
    device: str = ""
    address: str = ""
    shards: Sequence[str] = ()

    @staticmethod
    def of(user_id: str, device: str, client_address: str) -> Origin:
        """Return the origin of an order. `device` and `client_address` are empty if they are unknown.

        The ids of records contain digests of the device and of the address, or of the /64 network of an IPv6 address.
        """
        network = sha256(network_key(client_address).encode()).hexdigest()[:32] if client_address else ""
        shards = [f"net_{network}_{shard}" for shard in range(SHARDS)] if network else []
        own = shards[crc32(user_id.encode()) % SHARDS] if shards else ""
        known = f"dev_{sha256(device.encode()).hexdigest()[:32]}" if device else ""
        return Origin(user_id, known, own, shards)

    @property
    def records(self) -> list[str]:
        """The ids of the records that the order changes: the account's, the device's and the address's."""
        return [record_id for record_id in (self.account, self.device, self.address) if record_id]


class StockNeeded(ServiceError):
    """Internal error: the limits of the order depend on the stock of its products, which was not read."""

    def __init__(self) -> None:
        super().__init__(Code.ABORTED, "CONTENTION", "Try again.")


@dataclass(frozen=True)
class EarlierOrders:
    """What was read before the transaction that places an order.

    `orders` are the orders that were open in any of the records. `neighbours` are the other shards of the address.
    `on_hand` is the stock by product, or None before it was read.
    """

    orders: Mapping[str, Order]
    neighbours: Sequence[VelocityRecord] = ()
    on_hand: Mapping[str, int] | None = None


def count_order(
    origin: Origin, records: Mapping[str, VelocityRecord], order: Order, earlier: EarlierOrders, limits: VelocityLimits
) -> Sequence[VelocityRecord]:
    """Count an order in the records of its origin, and return them.

    Raises:
        ResourceExhausted: TOO_MANY_DECLINES, TOO_MANY_UNPAID_ORDERS, TOO_MANY_UNPAID_PIECES, TOO_MANY_ORDERS.
        StockNeeded: `earlier` has no stock, and it is needed.
    """
    account = records[origin.account]
    account.close_ended(earlier.orders, account.growth * limits.account.declines_per_hour)
    growth, now = account.growth, order.created_at
    # A hash spreads accounts unevenly over the shards, so each shard gets twice its share of the limits.
    by_record = {
        origin.account: limits.account.times(growth),
        origin.device: limits.device.times(growth),
        origin.address: limits.address.times(2 / SHARDS),
    }
    lines: Counter[str] = Counter()
    for line in order.lines:
        lines[line.product_id] += line.quantity
    for record_id in origin.records:
        record, its = records[record_id], by_record[record_id]
        record.close_ended(earlier.orders, its.declines_per_hour)
        _require_room(record.declines, its.declines_per_hour, "TOO_MANY_DECLINES", now)
        if 0 < its.unpaid_orders <= len(record.open):
            raise exhausted("TOO_MANY_UNPAID_ORDERS", "Too many orders are not paid yet.", 60.0)
        if its.stock_share:
            if len(lines) + sum(len(pieces) for pieces in record.held.values()) > MAX_HELD_LINES:
                raise exhausted("TOO_MANY_UNPAID_PIECES", "Too many orders are not paid yet.", 60.0)
            held = record.pieces()
            if record_id == origin.address:
                held.update(_held_elsewhere(earlier))
            _require_stock(lines, held, its.stock_share, limits.unpaid_pieces, growth, earlier.on_hand)
        _require_room(record.orders, its.orders_per_hour, "TOO_MANY_ORDERS", now)
        record.orders.add(its.orders_per_hour, now)
        if its.track_orders:
            record.open = [*record.open, order.id][-MAX_OPEN:]
        if its.stock_share:
            record.held = {key: pieces for key, pieces in record.held.items() if key in record.open}
            record.held[order.id] = dict(lines)
        record.updated_at = now
    return [records[record_id] for record_id in origin.records]


def _held_elsewhere(earlier: EarlierOrders) -> Counter[str]:
    """Return how many pieces of each product the open orders of the address's other shards hold."""
    total: Counter[str] = Counter()
    for record in earlier.neighbours:
        for order_id, pieces in record.held.items():
            order = earlier.orders.get(order_id)
            if order is None or order.payable:
                total.update(pieces)
    return total


def _require_stock(
    lines: Mapping[str, int],
    held: Mapping[str, int],
    share: float,
    pieces: int,
    growth: int,
    on_hand: Mapping[str, int] | None,
) -> None:
    """Raise an error if the pieces of a product that are held and ordered exceed the limit.

    The limit is `growth` times the greater of `pieces` and the `share` of the stock on hand. `on_hand` is None if the
    stock was not read; StockNeeded says that it is needed.
    """
    many = [product_id for product_id, count in lines.items() if held.get(product_id, 0) + count > pieces * growth]
    if many and on_hand is None:
        raise StockNeeded
    for product_id in many:
        most = growth * max(pieces, int(share * (on_hand or {}).get(product_id, 0)))
        if held.get(product_id, 0) + lines[product_id] > most:
            text = f"Unpaid orders may hold at most {most} pieces of {product_id}. Pay earlier orders, or order fewer."
            raise exhausted("TOO_MANY_UNPAID_PIECES", text, 30.0)


def _require_room(bucket: LeakyBucket, per_hour: int, reason: str, now: datetime) -> None:
    excess = bucket.drain(per_hour, now) + 1.0 - per_hour
    if per_hour and excess > 0:
        what = "declined payments" if reason == "TOO_MANY_DECLINES" else "orders"
        text = f"Too many {what} in a short time. Try again later."
        raise exhausted(reason, text, max(1.0, excess * HOUR / per_hour))
