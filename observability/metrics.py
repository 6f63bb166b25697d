"""Prometheus metrics that every service has, and the response of `/metrics`.

Durations are in seconds. Labels are bounded: service, RPC method, route template, event type, outcome; never
an id. In a sampled trace, the trace id is the exemplar.
"""

from __future__ import annotations

from bisect import bisect_left
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from observability import context

REGISTRY = CollectorRegistry()
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_EXEMPLAR_SECONDS = 1.0

RPC = Histogram(
    "rpc_server_duration_seconds",
    "Time to answer an RPC.",
    ["service", "method", "code"],
    buckets=_BUCKETS,
    registry=REGISTRY,
)
HTTP = Histogram(
    "http_server_request_duration_seconds",
    "Time to answer an HTTP request.",
    ["service", "method", "route", "status"],
    buckets=_BUCKETS,
    registry=REGISTRY,
)
EVENTS = Histogram(
    "shop_event_handling_seconds",
    "Time to handle a delivered event.",
    ["service", "type", "outcome"],
    buckets=_BUCKETS,
    registry=REGISTRY,
)
OUTBOX_DEPTH = Gauge(
    "shop_outbox_rows", "Events committed and not yet accepted by the broker.", ["service"], registry=REGISTRY
)
OUTBOX_AGE = Gauge("shop_outbox_oldest_seconds", "Age of the oldest of them.", ["service"], registry=REGISTRY)
FORGED = Counter(
    "shop_event_signatures_refused",
    "Events that were refused because their source did not sign them.",
    ["service", "reason"],
    registry=REGISTRY,
)
PUBLISHED = Counter(
    "shop_events_published", "Events handed to the broker.", ["service", "type", "outcome"], registry=REGISTRY
)
COMMITTED = Counter("shop_events_committed", "Events committed with the state.", ["service", "type"], registry=REGISTRY)
CIRCUITS = Gauge(
    "shop_circuit_open",
    "Providers outside: 0 they are called, 1 they failed too often and are not, 0.5 one call is let through to see.",
    ["circuit"],
    registry=REGISTRY,
)
SPANS = Counter(
    "shop_trace_spans",
    "Spans by what became of them: exported, lost by the exporter, or dropped by a full queue; the rest waits.",
    ["service", "outcome"],
    registry=REGISTRY,
)


class Observed:
    """One histogram with its labels looked up once: `observe` is on the hot path."""

    def __init__(self, histogram: Histogram, *labels: str) -> None:
        self._child = histogram.labels(*labels)
        self._due = [0.0] * (len(_BUCKETS) + 1)

    def observe(self, seconds: float) -> None:
        """Record a duration. In a sampled trace, the trace id becomes the bucket's exemplar.

        A bucket gets at most one exemplar a second, because a scrape sees only the last one, and an exemplar costs as
        much as the rest of this method.
        """
        ctx = context.current()
        if ctx.sampled:
            bucket, now = bisect_left(_BUCKETS, seconds), monotonic()
            if now >= self._due[bucket]:
                self._due[bucket] = now + _EXEMPLAR_SECONDS
                self._child.observe(seconds, {"trace_id": ctx.trace_id})
                return
        self._child.observe(seconds)


def exposition(accept: str, registry: CollectorRegistry = REGISTRY) -> tuple[bytes, str]:
    """Return the metrics and their content type: OpenMetrics (with exemplars) if `accept` allows it."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
