"""Prometheus metrics of the broker."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """All metrics. The number of label values (brokers, triggers, results, reasons) is bounded by the configuration."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def count(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"shop_broker_{name}", meaning, labels, registry=registry)

        self.registry = registry
        self.received = count("events_received", "Events accepted, replies included.", "broker")
        self.rejected = count("requests_rejected", "Requests refused by the ingress.", "reason")
        self.expired = count("events_expired", "Events dropped: their ttl ran out.", "broker")
        self.replies = count("replies", "Events that subscribers answered with.", "trigger")
        self.attempts = count("attempts", "Requests made to subscribers.", "trigger", "result")
        self.retries = count("retries", "Deliveries put off after a failure.", "trigger")
        # Results: delivered, dead_lettered, dropped (there is no dead-letter sink).
        self.deliveries = count("deliveries", "Deliveries that ended.", "trigger", "result")
        self.sink_failures = count("dead_letter_failures", "Failed requests to a dead-letter sink.", "trigger")
        self.pending = Gauge("shop_broker_pending", "Deliveries waiting or under way.", ["trigger"], registry=registry)
        self.latency = Histogram(
            "shop_broker_dispatch_seconds",
            "Time until a subscriber responded.",
            ["trigger"],
            buckets=_BUCKETS,
            registry=registry,
        )


class TriggerMetrics:
    """The metrics of one trigger, which its dispatchers share. A scrape reads `depth`."""

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
