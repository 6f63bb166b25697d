"""Decide which traces are recorded, as the standard variables OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG say."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased

from observability import context


class Sampler:
    """The SDK's sampler. `follows`: a child is recorded if its parent is."""

    def __init__(self) -> None:
        # The SDK's provider reads the variables; it starts no span.
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        self.follows = isinstance(self._sampler, ParentBased)

    def sampled(self, parent: context.Context, trace_id: str, name: str) -> bool:
        """Ask the sampler whether to record a new span.

        If `follows` is true, call this only for root spans: other spans take the decision of their parent.
        """
        known = Context()
        if not parent.root:
            flags = trace.TraceFlags(int(parent.flags, 16))
            caller = trace.SpanContext(int(trace_id, 16), int(parent.span_id, 16), True, flags)
            known = trace.set_span_in_context(trace.NonRecordingSpan(caller), known)
        decision: Any = self._sampler.should_sample(known, int(trace_id, 16), name).decision
        return bool(decision.is_sampled())
