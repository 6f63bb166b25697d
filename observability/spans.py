"""A span as it is recorded: what the SDK's object costs in start, attributes and end is several times as much.

Sampler, resource, batching and exporters are the SDK's (`export.py`).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar, Literal

Kind = Literal["SERVER", "CLIENT", "PRODUCER", "CONSUMER", "INTERNAL"]


class Span:
    """One operation. Ids in hexadecimal, as in a traceparent; times in nanoseconds since 1970; `failed`: its status."""

    __slots__ = (
        "attributes",
        "end",
        "failed",
        "kind",
        "name",
        "parent_id",
        "span_id",
        "start",
        "trace_id",
        "tracestate",
    )

    context: ClassVar[Any] = SimpleNamespace(trace_flags=SimpleNamespace(sampled=True))
    """What the SDK's batching asks of a span before it takes it: only sampled ones get there."""

    def __init__(
        self,
        name: str,
        kind: Kind,
        attributes: dict[str, Any],
        ids: tuple[str, str, str],
        tracestate: str,
        start: int,
    ) -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.trace_id, self.span_id, self.parent_id = ids
        self.tracestate = tracestate
        self.start = start
        self.end = 0
        self.failed = False

    def set_attribute(self, key: str, value: str | int | float | bool) -> None:
        """As OpenTelemetry's."""
        self.attributes[key] = value

    def update_name(self, name: str) -> None:
        """As OpenTelemetry's."""
        self.name = name
