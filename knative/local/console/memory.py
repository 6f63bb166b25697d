"""The console's data, in memory of bounded size: traces, orders, and counts of the parts' work."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from knative.local.console.spans import Span

SPANS: Final = 20_000  # about 20 MB
SPANS_EACH: Final = 500
ORDERS: Final = 200
OPERATIONS: Final = 500
STEPS_EACH: Final = 100
LATENCIES: Final = 500
RATE_SECONDS: Final = 10

_ORDER: Final = "ord_"
_RETRIES: Final = "shop.retry_count"
_TYPE: Final = "messaging.destination.name"
_STATUS: Final = {
    "shop.order.placed.v1": "PLACED",
    "shop.stock.reserved.v1": "RESERVED",
    "shop.order.confirmed.v1": "CONFIRMED",
    "shop.order.shipped.v1": "SHIPPED",
    "shop.order.delivered.v1": "DELIVERED",
    "shop.order.cancelled.v1": "CANCELLED",
}
_RANK: Final = {status: number for number, status in enumerate(_STATUS.values())}


class Work:
    """Statistics of operations: the numbers of operations and failures, and the latest durations."""

    def __init__(self) -> None:
        self.count = self.failed = 0
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._seconds: deque[tuple[int, int]] = deque(maxlen=RATE_SECONDS + 1)

    def add(self, span: Span, now: float) -> None:
        """Count one operation."""
        self.count += 1
        self.failed += span.failed
        self._latencies.append(span.seconds)
        second = int(now)
        before = self._seconds.pop()[1] if self._seconds and self._seconds[-1][0] == second else 0
        self._seconds.append((second, before + 1))

    def seen(self, now: float) -> dict[str, Any]:
        """Return count, failed, rate (per second, over the last ten seconds), and p50 and p95 in milliseconds."""
        recent = sum(n for second, n in self._seconds if second > now - RATE_SECONDS)
        ordered = sorted(self._latencies)
        return {
            "count": self.count,
            "failed": self.failed,
            "rate": round(recent / RATE_SECONDS, 1),
            "p50_ms": _percentile(ordered, 0.5),
            "p95_ms": _percentile(ordered, 0.95),
        }


@dataclass
class Order:
    """An order, reconstructed from its events.

    `steps` maps the id and type of an event to (Unix time, event type, service, trace).
    """

    id: str
    steps: dict[tuple[str, str], tuple[float, str, str, str]] = field(default_factory=dict)

    def add(self, span: Span) -> None:
        """Add a step for the publication of an event. Retries of a publication add no step."""
        key = (str(span.attributes.get("messaging.message.id")), str(span.attributes[_TYPE]))
        if len(self.steps) < STEPS_EACH:
            self.steps.setdefault(key, (span.start, key[1], span.service, span.trace))

    def seen(self) -> dict[str, Any]:
        """Return the order with its furthest state, and its steps in order of time."""
        steps = sorted(self.steps.values())
        states = [_STATUS[type_] for _, type_, _, _ in steps if type_ in _STATUS]
        return {
            "id": self.id,
            "status": max(states, key=_RANK.__getitem__, default="PLACED"),
            "placed_at": steps[0][0],
            "seconds": round(steps[-1][0] - steps[0][0], 3),
            "trace": steps[0][3],
            "steps": [{"at": at, "type": t, "service": s, "trace": trace} for at, t, s, trace in steps],
        }


class Memory:
    """Stores spans with `take`; the other methods read them. `clock` returns Unix time in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._traces: OrderedDict[str, list[Span]] = OrderedDict()
        self._kept = 0
        self._orders: OrderedDict[str, Order] = OrderedDict()
        self._parts: dict[str, Work] = {}
        self._operations: dict[tuple[str, str], Work] = {}
        self._publishers: dict[str, str] = {}
        self._handled: dict[tuple[str, str], Work] = {}
        self._deliveries = {"attempts": 0, "retries": 0, "failed": 0, "dead_lettered": 0}

    def take(self, spans: Iterable[Span]) -> None:
        """Store spans; delete the oldest traces beyond the limit."""
        now = self._clock()
        for span in spans:
            self._keep(span)
            if span.kind in ("SERVER", "CONSUMER"):
                self._count(self._parts, span.service, span, now)
                self._count(self._operations, (span.service, span.name), span, now)
            if _TYPE in span.attributes:
                self._follow(span, now)

    def overview(self) -> dict[str, Any]:
        """Return work by part and operation, the flow of events, and the outcomes of deliveries."""
        now = self._clock()
        return {
            "parts": {name: work.seen(now) for name, work in self._parts.items()},
            "operations": [
                {"service": service, "name": name, **work.seen(now)}
                for (service, name), work in self._operations.items()
            ],
            "flow": [
                {"from": self._publishers.get(type_, ""), "to": to, "type": type_, **work.seen(now)}
                for (type_, to), work in self._handled.items()
            ],
            "deliveries": self._deliveries,
        }

    def orders(self) -> list[dict[str, Any]]:
        """Return the orders, the latest first."""
        return sorted((order.seen() for order in self._orders.values()), key=lambda o: -o["placed_at"])

    def trace(self, trace_id: str) -> list[dict[str, Any]] | None:
        """Return the spans of a trace in order of their start; None if the trace is unknown or was deleted."""
        spans = self._traces.get(trace_id)
        if spans is None:
            return None
        return [span._asdict() for span in sorted(spans, key=lambda span: span.start)]

    def _keep(self, span: Span) -> None:
        spans = self._traces.setdefault(span.trace, [])
        self._traces.move_to_end(span.trace)
        if len(spans) < SPANS_EACH:
            spans.append(span)
            self._kept += 1
        while self._kept > SPANS:
            self._kept -= len(self._traces.popitem(last=False)[1])

    def _follow(self, span: Span, now: float) -> None:
        type_ = str(span.attributes[_TYPE])
        operation = span.attributes.get("messaging.operation.name")
        if operation == "publish":
            self._publishers[type_] = span.service
            self._tell(span)
        elif operation == "process":
            self._count(self._handled, (type_, span.service), span, now)
        elif operation == "deliver":
            self._deliveries["attempts"] += 1
            self._deliveries["retries"] += bool(span.attributes.get(_RETRIES))
            self._deliveries["failed"] += span.failed
        elif operation == "dead-letter":
            self._deliveries["dead_lettered"] += 1

    def _tell(self, span: Span) -> None:
        subject = str(span.attributes.get("cloudevents.event_subject", ""))
        if not subject.startswith(_ORDER):
            return
        self._orders.setdefault(subject, Order(subject)).add(span)
        if len(self._orders) > ORDERS:
            self._orders.popitem(last=False)

    @staticmethod
    def _count(counts: dict[Any, Work], key: Any, span: Span, now: float) -> None:
        work = counts.get(key)
        if work is None:
            if len(counts) >= OPERATIONS:
                return
            work = counts[key] = Work()
        work.add(span, now)


def _percentile(ordered: list[float], share: float) -> float | None:
    """Return the percentile `share` (0 to 1) of durations in seconds, in milliseconds; None without durations."""
    return round(ordered[int(share * (len(ordered) - 1))] * 1000, 2) if ordered else None
