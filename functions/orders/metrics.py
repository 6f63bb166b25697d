"""Metrics of orders: their states, and the duration of the saga. All label values come from fixed lists."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from prometheus_client import Counter, Histogram

from events.catalog import OrderCancelled, OrderConfirmed, OrderDelivered, OrderPlaced, OrderShipped, Payload
from functions.orders.domain import ACCOUNT_DELETED, DISPUTE_LOST, REFUNDED, SAGA_REASONS
from functions.orders.velocity import REASONS
from functions.runtime.event_metrics import EventMetric
from functions.runtime.ids import made_at
from observability.metrics import REGISTRY

STATUS = Counter("shop_orders", "Orders that came to a status.", ["status"], registry=REGISTRY)
CANCELLED = Counter("shop_orders_cancelled", "Cancelled orders by reason.", ["reason"], registry=REGISTRY)
REFUSED = Counter(
    "shop_orders_refused", "Orders that were not placed for their number, by reason.", ["reason"], registry=REGISTRY
)
for _reason in REASONS:
    REFUSED.labels(_reason)
SAGA = Histogram(
    "shop_saga_seconds",
    "Time from an order's placement to its confirmation, or to its cancellation by the platform.",
    ["outcome"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 1800),
    registry=REGISTRY,
)
for _status in ("PLACED", "CONFIRMED", "CANCELLED", "SHIPPED", "DELIVERED"):
    STATUS.labels(_status)  # export 0 from the start: a rate needs two samples
_REASONS = SAGA_REASONS | {ACCOUNT_DELETED, DISPUTE_LOST, REFUNDED}
for _reason in sorted({*_REASONS, "OTHER"}):
    CANCELLED.labels(_reason)
for _outcome in ("confirmed", "cancelled"):
    SAGA.labels(_outcome)


def _confirmed(event: OrderConfirmed, at: datetime) -> None:
    STATUS.labels("CONFIRMED").inc()
    _ended("confirmed", event.order_id, at)


def _cancelled(event: OrderCancelled, at: datetime) -> None:
    STATUS.labels("CANCELLED").inc()
    CANCELLED.labels(event.reason if event.reason in _REASONS else "OTHER").inc()
    if event.reason in SAGA_REASONS:
        _ended("cancelled", event.order_id, at)


def _ended(outcome: str, order_id: str, at: datetime) -> None:
    # The id of an order contains the time at which it was placed.
    SAGA.labels(outcome).observe(max(0.0, (at - made_at(order_id)).total_seconds()))


EVENT_METRICS: Mapping[type[Payload], EventMetric] = {
    OrderPlaced: lambda _event, _at: STATUS.labels("PLACED").inc(),
    OrderConfirmed: _confirmed,
    OrderCancelled: _cancelled,
    OrderShipped: lambda _event, _at: STATUS.labels("SHIPPED").inc(),
    OrderDelivered: lambda _event, _at: STATUS.labels("DELIVERED").inc(),
}
