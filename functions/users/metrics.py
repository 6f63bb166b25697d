"""Metrics of accounts."""

from __future__ import annotations

from prometheus_client import Counter

from observability.metrics import REGISTRY

REGISTRATIONS_REFUSED = Counter(
    "shop_registrations_refused",
    "Registrations refused since too many came from one network address, or in all.",
    ["bound"],
    registry=REGISTRY,
)
