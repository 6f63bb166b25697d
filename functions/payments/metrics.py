"""Payments in numbers: how they end, and the money that comes and goes, in minor units by currency."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from prometheus_client import Counter

from events.catalog import Money, Payload, PaymentCaptured, PaymentDeclined, PaymentRefunded
from functions.runtime.committed import Measure
from observability.metrics import REGISTRY

CURRENCIES = 20
"""As many currencies have a label of their own; what is sold in still others is `other`, and its sum has no meaning."""

PAYMENTS = Counter("shop_payments", "Payments by outcome.", ["outcome"], registry=REGISTRY)
REVENUE = Counter("shop_revenue_minor", "Money captured.", ["currency"], registry=REGISTRY)
REFUNDS = Counter("shop_refunds_minor", "Money given back.", ["currency"], registry=REGISTRY)
for _outcome in ("captured", "declined", "refunded"):
    PAYMENTS.labels(_outcome)

_currencies: set[str] = set()


def _captured(event: PaymentCaptured, at: datetime) -> None:
    PAYMENTS.labels("captured").inc()
    _count(REVENUE, event.amount)


def _declined(_: PaymentDeclined, at: datetime) -> None:
    PAYMENTS.labels("declined").inc()


def _refunded(event: PaymentRefunded, at: datetime) -> None:
    PAYMENTS.labels("refunded").inc()
    _count(REFUNDS, event.amount)


def _count(counter: Counter, money: Money) -> None:
    if len(_currencies) < CURRENCIES:
        _currencies.add(money.currency)
    counter.labels(money.currency if money.currency in _currencies else "other").inc(money.amount)


MEASURES: Mapping[type[Payload], Measure] = {
    PaymentCaptured: _captured,
    PaymentDeclined: _declined,
    PaymentRefunded: _refunded,
}
