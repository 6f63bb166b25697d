"""Metrics of payments: their outcomes, and the captured and refunded money by currency, in minor units."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from prometheus_client import Counter, Gauge

from events.catalog import (
    Money,
    Payload,
    PaymentCaptured,
    PaymentDeclined,
    PaymentDisputeClosed,
    PaymentDisputed,
    PaymentRefunded,
)
from functions.runtime.currencies import exponent
from functions.runtime.event_metrics import EventMetric
from observability.metrics import REGISTRY

CURRENCIES = 20
"""The number of currencies that get their own label. Further currencies share `other`, whose sum has no meaning."""

PAYMENTS = Counter("shop_payments", "Payments by outcome.", ["outcome"], registry=REGISTRY)
REVENUE = Counter("shop_revenue_minor", "Money captured.", ["currency"], registry=REGISTRY)
REFUNDS = Counter("shop_refunds_minor", "Money given back.", ["currency"], registry=REGISTRY)
DISPUTES = Counter(
    "shop_disputes", "Disputes of charges that were opened, won or lost.", ["outcome"], registry=REGISTRY
)
for _outcome in ("opened", "won", "lost"):
    DISPUTES.labels(_outcome)
UNITS = Gauge(
    "shop_currency_minor_units",
    "Minor units in one major unit of a currency by ISO 4217, to divide the sums by.",
    ["currency"],
    registry=REGISTRY,
)
PROVIDER_ERRORS = Counter(
    "shop_payment_provider_errors",
    "Calls of the payment provider that gave no final answer, by kind; `configuration` is the operator's to mend.",
    ["kind"],
    registry=REGISTRY,
)
for _kind in ("configuration", "rate_limited", "unavailable"):
    PROVIDER_ERRORS.labels(_kind)
for _outcome in ("captured", "declined", "refunded"):
    PAYMENTS.labels(_outcome)

_currencies: set[str] = set()


def _captured(event: PaymentCaptured, _: datetime) -> None:
    PAYMENTS.labels("captured").inc()
    _count(REVENUE, event.amount)


def _refunded(event: PaymentRefunded, _: datetime) -> None:
    PAYMENTS.labels("refunded").inc()
    _count(REFUNDS, event.amount)


def _count(counter: Counter, money: Money) -> None:
    if len(_currencies) < CURRENCIES:
        _currencies.add(money.currency)
    label = money.currency if money.currency in _currencies else "other"
    counter.labels(label).inc(money.amount)
    UNITS.labels(label).set(10 ** exponent(money.currency) if label != "other" else 1)


EVENT_METRICS: Mapping[type[Payload], EventMetric] = {
    PaymentCaptured: _captured,
    PaymentDeclined: lambda _event, _at: PAYMENTS.labels("declined").inc(),
    PaymentRefunded: _refunded,
    PaymentDisputed: lambda _event, _at: DISPUTES.labels("opened").inc(),
    PaymentDisputeClosed: lambda event, _at: DISPUTES.labels(event.outcome.lower()).inc(),
}
