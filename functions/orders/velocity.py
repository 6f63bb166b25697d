"""Velocity limits: how fast orders may be placed, by account and by network address.

They prevent inventory denial (orders that reserve stock and are never paid) and card testing (orders that find out
which cards work). A limit is a leaky bucket: each order or decline adds one, and an hour's budget drains in an hour.
An account's limits grow with the number of orders that it has paid.

The records commit with the order. An account has one record. An address has `SHARDS` records, chosen by account, so
that its accounts do not all contend for one record. The outcome of an account's earlier orders is looked up when it
places the next order, so that events need not update the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from zlib import crc32

from functions.orders.domain import Order, Status
from functions.runtime.errors import ServiceError, exhausted
from functions.runtime.networks import network_key

HOUR = 3600.0
SHARDS = 8
DECLINES = frozenset({"PAYMENT_DECLINED", "INSUFFICIENT_FUNDS"})
ACCOUNTS_KEPT = timedelta(days=365)
ADDRESSES_KEPT = timedelta(hours=2)
MAX_OPEN = 200
"""The maximum number of tracked open orders of an account: ten times the highest allowed value of `unpaid_orders`."""
MAX_GROWTH = 10
"""A customer's limits are at most this many times those of a new account."""
PAID_ORDERS_PER_GROWTH = 5
"""Each time a customer has paid this many orders, every limit grows by the limit of a new account."""


@dataclass(frozen=True)
class VelocityLimits:
    """The limits of a new account and of an address. 0 means no limit."""

    orders_per_hour: int = 60
    declines_per_hour: int = 10
    unpaid_orders: int = 10
    orders_per_hour_per_address: int = 600
    declines_per_hour_per_address: int = 60

    @property
    def track_orders(self) -> bool:
        """Whether any limit depends on the outcome of earlier orders. If not, they are not looked up."""
        return bool(self.unpaid_orders or self.declines_per_hour or self.declines_per_hour_per_address)


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
    """The counts of an account (`id` is the user's id) or of one shard of an address.

    `open` are the orders that were unpaid when last looked up; `paid` counts the paid orders.
    """

    id: str
    updated_at: datetime
    orders: LeakyBucket = field(default_factory=LeakyBucket)
    declines: LeakyBucket = field(default_factory=LeakyBucket)
    open: list[str] = field(default_factory=list)
    paid: int = 0
    version: int = 0

    @property
    def growth(self) -> int:
        """The factor that multiplies the limits of a new account for this customer."""
        return min(MAX_GROWTH, 1 + self.paid // PAID_ORDERS_PER_GROWTH)

    @property
    def expires_at(self) -> datetime:
        """The time from which the record is no longer needed."""
        return self.updated_at + (ACCOUNTS_KEPT if self.id.startswith("usr_") else ADDRESSES_KEPT)


def address_record_id(address: str, user_id: str) -> str:
    """Return the id of the address's record (shard) that counts the orders of this account.

    It contains a digest of the address, or of the /64 network of an IPv6 address.
    """
    return f"net_{sha256(network_key(address).encode()).hexdigest()[:32]}_{crc32(user_id.encode()) % SHARDS}"


def count_order(
    account: VelocityRecord,
    address: VelocityRecord | None,
    order_id: str,
    open_orders: Mapping[str, Order],
    limits: VelocityLimits,
    now: datetime,
) -> Sequence[VelocityRecord]:
    """Count an order in both records and return them. `open_orders` are the existing orders among `account.open`.

    Raises:
        ResourceExhausted: TOO_MANY_DECLINES, TOO_MANY_UNPAID_ORDERS, TOO_MANY_ORDERS.
    """
    growth = account.growth
    declines_per_hour = growth * limits.declines_per_hour
    declined_at = _close_ended(account, open_orders, declines_per_hour)
    _require_room(account.declines, declines_per_hour, "TOO_MANY_DECLINES", now)
    if 0 < growth * limits.unpaid_orders <= len(account.open):
        raise exhausted("TOO_MANY_UNPAID_ORDERS", "Too many of your orders are not paid yet.", 60.0)
    _require_room(account.orders, growth * limits.orders_per_hour, "TOO_MANY_ORDERS", now)
    account.orders.add(growth * limits.orders_per_hour, now)
    if limits.track_orders:
        account.open = [*account.open, order_id][-MAX_OPEN:]
    account.updated_at = now
    if address is None:
        return [account]
    orders_per_hour = _of_shard(limits.orders_per_hour_per_address)
    declines_per_hour = _of_shard(limits.declines_per_hour_per_address)
    for at in declined_at:
        address.declines.add(declines_per_hour, at)
    _require_room(address.declines, declines_per_hour, "TOO_MANY_DECLINES", now)
    _require_room(address.orders, orders_per_hour, "TOO_MANY_ORDERS", now)
    address.orders.add(orders_per_hour, now)
    address.updated_at = now
    return [account, address]


def _of_shard(limit: int) -> int:
    # A hash spreads accounts unevenly over the shards, so each shard gets twice its share: 2/8 of the limit.
    return 0 if limit == 0 else max(1, 2 * limit // SHARDS)


def _close_ended(
    account: VelocityRecord, orders: Mapping[str, Order], declines_per_hour: int
) -> list[datetime]:
    """Remove orders that are no longer payable from `open`, and count the paid and the declined ones.

    Returns the times at which the declined orders were declined.
    """
    ended = [
        orders[order_id] for order_id in account.open if order_id in orders and not orders[order_id].payable
    ]
    account.open = [order_id for order_id in account.open if order_id not in {order.id for order in ended}]
    account.paid += sum(any(entry.status is Status.CONFIRMED for entry in order.timeline) for order in ended)
    declined_at = sorted(order.moved_at for order in ended if order.cancel_reason in DECLINES)
    for at in declined_at:
        account.declines.add(declines_per_hour, at)
    return declined_at


def _require_room(bucket: LeakyBucket, per_hour: int, reason: str, now: datetime) -> None:
    excess = bucket.drain(per_hour, now) + 1.0 - per_hour
    if per_hour and excess > 0:
        raise _too_many(reason, excess * HOUR / per_hour)


def _too_many(reason: str, seconds: float) -> ServiceError:
    what = "declined payments" if reason == "TOO_MANY_DECLINES" else "orders"
    return exhausted(reason, f"Too many {what} in a short time. Try again later.", max(1.0, seconds))
