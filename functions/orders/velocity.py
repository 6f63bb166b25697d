"""How fast orders may be placed: budgets by account and by network address, which grow with a customer's history.

They stop inventory denial (orders that hold stock and are never paid) and card testing (orders to see which cards are
good). A budget is a leaky bucket: each order or decline adds one, and the budget of an hour drains in an hour. The
records commit with the order. An account has one record; an address has `SHARDS`, by account, so that no record is
everybody's. What became of the account's earlier orders is looked up when the next one is placed, so that events cost
nothing more.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from zlib import crc32

from functions.orders.domain import Order, Status
from functions.runtime.errors import ServiceError, exhausted

HOUR = 3600.0
SHARDS = 8
DECLINES = frozenset({"PAYMENT_DECLINED", "INSUFFICIENT_FUNDS"})
ACCOUNTS_KEPT = timedelta(days=365)
ADDRESSES_KEPT = timedelta(hours=2)
MOST_OPEN = 200
"""So many of an account's orders are followed at most: ten times the highest setting of unpaid orders."""
MOST_GROWTH = 10
"""A customer's budgets are at most so many times a newcomer's."""
ORDERS_PER_GROWTH = 5
"""After so many paid orders a customer's budgets are once more a newcomer's."""


@dataclass(frozen=True)
class Budgets:
    """What a newcomer and an address may do; 0 sets no bound."""

    orders_per_hour: int = 60
    declines_per_hour: int = 10
    unpaid_orders: int = 10
    orders_per_hour_per_address: int = 600
    declines_per_hour_per_address: int = 60

    @property
    def any(self) -> bool:
        """Whether anything is bounded."""
        return any(vars(self).values())

    @property
    def follows_orders(self) -> bool:
        """Whether it matters what becomes of orders; else they are not looked up."""
        return bool(self.unpaid_orders or self.declines_per_hour or self.declines_per_hour_per_address)


@dataclass
class Bucket:
    """`level` of what happened, as it was at `at`; it drains by the budget of an hour in an hour."""

    level: float = 0.0
    at: datetime | None = None

    def drain(self, budget: int, now: datetime) -> float:
        """Return the level at `now`, and keep it."""
        elapsed = max(0.0, (now - self.at).total_seconds()) if self.at else 0.0
        self.level = max(0.0, self.level - elapsed * budget / HOUR)
        self.at = now if self.at is None else max(self.at, now)
        return self.level

    def add(self, budget: int, now: datetime) -> None:
        """Count one more."""
        self.drain(budget, now)
        self.level += 1.0


@dataclass
class Pace:
    """The record of one account (`id` is the person's), or of an address's share; `open` are orders not seen to end."""

    id: str
    updated_at: datetime
    orders: Bucket = field(default_factory=Bucket)
    declines: Bucket = field(default_factory=Bucket)
    open: list[str] = field(default_factory=list)
    paid: int = 0
    version: int = 0

    @property
    def growth(self) -> int:
        """How many times a newcomer's budgets this customer has."""
        return min(MOST_GROWTH, 1 + self.paid // ORDERS_PER_GROWTH)

    @property
    def expires_at(self) -> datetime:
        """When nobody needs it any more."""
        return self.updated_at + (ACCOUNTS_KEPT if self.id.startswith("usr_") else ADDRESSES_KEPT)


def address_id(address: str, user_id: str) -> str:
    """The record of an address that this account's orders count on: a digest of the address, or of its /64."""
    network = address
    if ":" in address:
        try:
            network = str(ipaddress.IPv6Network((address.partition("%")[0], 64), strict=False))
        except ValueError:
            network = address
    return f"net_{sha256(network.encode()).hexdigest()[:32]}_{crc32(user_id.encode()) % SHARDS}"


def spend(
    account: Pace,
    address: Pace | None,
    order_id: str,
    known: Mapping[str, Order],
    budgets: Budgets,
    now: datetime,
) -> Sequence[Pace]:
    """Count an order on both records, and return them.

    `known` are those of the account's `open` orders that were looked up. Raises RESOURCE_EXHAUSTED: TOO_MANY_DECLINES,
    TOO_MANY_UNPAID_ORDERS, TOO_MANY_ORDERS.
    """
    growth = account.growth
    declined = _see_what_ended(account, known, growth * budgets.declines_per_hour)
    _bound(account.declines, growth * budgets.declines_per_hour, "TOO_MANY_DECLINES", now)
    if 0 < growth * budgets.unpaid_orders <= len(account.open):
        raise exhausted("TOO_MANY_UNPAID_ORDERS", "Too many of your orders are not paid yet.", 60.0)
    _bound(account.orders, growth * budgets.orders_per_hour, "TOO_MANY_ORDERS", now)
    account.orders.add(growth * budgets.orders_per_hour, now)
    if budgets.follows_orders:
        account.open = [*account.open, order_id][-MOST_OPEN:]
    account.updated_at = now
    if address is None:
        return [account]
    # A share counts the accounts of its shard: two of eight shares' worth leave room for chance.
    orders, declines = (
        _share(n) for n in (budgets.orders_per_hour_per_address, budgets.declines_per_hour_per_address)
    )
    for at in declined:
        address.declines.add(declines, at)
    _bound(address.declines, declines, "TOO_MANY_DECLINES", now)
    _bound(address.orders, orders, "TOO_MANY_ORDERS", now)
    address.orders.add(orders, now)
    address.updated_at = now
    return [account, address]


def _share(budget: int) -> int:
    return 0 if budget == 0 else max(1, 2 * budget // SHARDS)


def _see_what_ended(account: Pace, known: Mapping[str, Order], budget: int) -> list[datetime]:
    """Take ended orders from `open`, counting the paid and the declined; when each was declined."""
    ended = [
        known[order_id] for order_id in account.open if order_id in known and not known[order_id].payable
    ]
    account.open = [order_id for order_id in account.open if order_id not in {order.id for order in ended}]
    account.paid += sum(any(entry.status is Status.CONFIRMED for entry in order.timeline) for order in ended)
    declined = sorted(order.moved_at for order in ended if order.cancel_reason in DECLINES)
    for at in declined:
        account.declines.add(budget, at)
    return declined


def _bound(bucket: Bucket, budget: int, reason: str, now: datetime) -> None:
    over = bucket.drain(budget, now) + 1.0 - budget
    if budget and over > 0:
        raise _too_fast(reason, over * HOUR / budget)


def _too_fast(reason: str, seconds: float) -> ServiceError:
    what = "declined payments" if reason == "TOO_MANY_DECLINES" else "orders"
    return exhausted(reason, f"Too many {what} in a short time. Try again later.", max(1.0, seconds))
