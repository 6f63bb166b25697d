"""The broker's metrics, on a registry that is passed in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """All instruments; labels are brokers, triggers, results and reasons: bounded by the configuration."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.received = Counter(
            "shop_broker_events_received", "Events accepted, replies included.", ["broker"], registry=registry
        )
        self.rejected = Counter(
            "shop_broker_requests_rejected", "Requests refused at the door.", ["reason"], registry=registry
        )
        self.expired = Counter(
            "shop_broker_events_expired", "Events dropped: their ttl ran out.", ["broker"], registry=registry
        )
        self.replies = Counter(
            "shop_broker_replies", "Events that subscribers answered with.", ["trigger"], registry=registry
        )
        self.attempts = Counter(
            "shop_broker_attempts", "Requests made to subscribers.", ["trigger", "result"], registry=registry
        )
        self.retries = Counter(
            "shop_broker_retries", "Deliveries put off after a failure.", ["trigger"], registry=registry
        )
        self.deliveries = Counter(
            "shop_broker_deliveries",
            "Deliveries that ended: delivered, dead_lettered, or dropped (no dead-letter sink).",
            ["trigger", "result"],
            registry=registry,
        )
        self.sink_failures = Counter(
            "shop_broker_dead_letter_failures",
            "Requests to a dead-letter sink that failed; they are repeated.",
            ["trigger"],
            registry=registry,
        )
        self.pending = Gauge(
            "shop_broker_pending", "Deliveries waiting or on their way.", ["trigger"], registry=registry
        )
        self.latency = Histogram(
            "shop_broker_dispatch_seconds",
            "Time until a subscriber answered.",
            ["trigger"],
            buckets=_BUCKETS,
            registry=registry,
        )


class TriggerMetrics:
    """One trigger's instruments with their labels looked up once; `depth` is read at each scrape."""

    def __init__(self, metrics: Metrics, key: str) -> None:
        self.replies = metrics.replies.labels(key)
        self.succeeded = metrics.attempts.labels(key, "success")
        self.failed = metrics.attempts.labels(key, "failure")
        self.retries = metrics.retries.labels(key)
        self.delivered = metrics.deliveries.labels(key, "delivered")
        self.dead_lettered = metrics.deliveries.labels(key, "dead_lettered")
        self.dropped = metrics.deliveries.labels(key, "dropped")
        self.sink_failures = metrics.sink_failures.labels(key)
        self.latency = metrics.latency.labels(key)
        self.depth = 0
        metrics.pending.labels(key).set_function(lambda: self.depth)
