"""The OpenTelemetry API's TracerProvider, Tracer and Span over our spans.

With it, spans of `trace.get_tracer(...)` in a handler and of a library's own instrumentation join the current trace. It
is imported only if traces are requested; otherwise the API does nothing. It uses only public parts of the API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from time import time_ns
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from observability import context as shop_context
from observability import tracing
from observability.tracing import Scope, SpanTemplate

_SCALARS = (str, bool, int, float)


class ApiTracerProvider(trace.TracerProvider):
    """Makes tracers that record with the provider that `tracing.install` was given."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Any = None,
    ) -> trace.Tracer:
        """Return a tracer for this instrumentation scope."""
        return ApiTracer(Scope(instrumenting_module_name, instrumenting_library_version or "", schema_url or ""))


class ApiTracer(trace.Tracer):
    """Starts spans of one instrumentation scope."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def start_span(  # noqa: PLR0917 - the API's signature
        self,
        name: str,
        context: otel_context.Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: Any = None,
        links: Any = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        """Start a span: a child of the span in `context`, else of the innermost current span, ours or the API's."""
        provider = tracing.provider()
        if provider is None:
            return trace.INVALID_SPAN
        span = ApiSpan(provider, _template(name, kind.name, self._scope), {}, _parent(context))
        span.base = shop_context.current()
        span.set_attributes(attributes or {})
        span.links = [(link.context, dict(link.attributes or {})) for link in links or ()]
        if start_time is not None:
            span.start_time = start_time
        return span

    @contextmanager
    def start_as_current_span(  # type: ignore[override]  # noqa: PLR0917 - the API's signature; its decorator is private
        self,
        name: str,
        context: otel_context.Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: Any = None,
        links: Any = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[trace.Span]:
        """Start a span and make it current in the API's context and in ours, so that logs and calls have its ids."""
        span = self.start_span(name, context, kind, attributes, links, start_time)
        token = shop_context.push(span) if isinstance(span, ApiSpan) else None
        try:
            with trace.use_span(span, end_on_exit, record_exception, set_status_on_exception):
                yield span
        finally:
            if token is not None:
                shop_context.pop(token)


class ApiSpan(tracing.Span, trace.Span):
    """A span that the OpenTelemetry API started.

    `base` is our current context at its start. Messages of exceptions and status descriptions are not recorded: they
    may quote user input.
    """

    base: shop_context.Context
    links: list[tuple[trace.SpanContext, dict[str, Any]]]
    events: tuple[tuple[str, int, dict[str, Any]], ...] = ()

    def end(self, end_time: int | None = None) -> None:
        """End the span; later calls do nothing."""
        if self.end_time:
            return
        self.end_time = end_time or time_ns()
        if self.sampled:
            self._provider.end(self)

    def get_span_context(self) -> trace.SpanContext:
        """Return the ids, flags and state of the span."""
        state = trace.TraceState.from_header([self.tracestate]) if self.tracestate else None
        flags = trace.TraceFlags(int(self.flags, 16))
        return trace.SpanContext(int(self.trace_id, 16), int(self.span_id, 16), False, flags, state)

    def is_recording(self) -> bool:
        """Return whether the span still records attributes and events."""
        return self.sampled and not self.end_time

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute: a scalar, or a sequence of scalars."""
        self.attributes[key] = value if isinstance(value, _SCALARS) else _sequence(value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Add an event, now or at `timestamp` (nanoseconds since 1970)."""
        self.events = (*self.events, (name, timestamp or time_ns(), dict(attributes or {})))

    def add_link(self, context: trace.SpanContext, attributes: Any = None) -> None:
        """Add a link to another span."""
        self.links.append((context, dict(attributes or {})))

    def update_name(self, name: str) -> None:
        """Change the name."""
        self.template = _template(name, self.template.kind, self.template.scope)

    def set_status(self, status: trace.Status | trace.StatusCode, description: str | None = None) -> None:
        """Mark the span as failed for ERROR, as not failed otherwise."""
        code = status.status_code if isinstance(status, trace.Status) else status
        self.failed = code is trace.StatusCode.ERROR

    def record_exception(
        self, exception: BaseException, attributes: Any = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        """Add an event with the type of the exception."""
        kind = type(exception).__qualname__
        self.attributes.setdefault("error.type", kind)
        self.add_event("exception", {"exception.type": kind, **(attributes or {})}, timestamp)

    def __enter__(self) -> ApiSpan:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def register() -> None:
    """Make our provider the API's global one, once a process."""
    if not isinstance(trace.get_tracer_provider(), ApiTracerProvider):
        trace.set_tracer_provider(ApiTracerProvider())


def _parent(given: otel_context.Context | None) -> shop_context.Context:
    here = shop_context.current()
    span = trace.get_current_span(given)
    if isinstance(span, ApiSpan):
        # Without an explicit context, the parent is the innermost span: ours, if it began inside `span`, otherwise
        # `span`.
        return span if given is not None or span.base is here else here
    known = span.get_span_context()
    if known.is_valid:
        ids = f"00-{known.trace_id:032x}-{known.span_id:016x}-{known.trace_flags:02x}"
        return shop_context.Context(here.correlation_id, ids, known.trace_state.to_header())
    if given is None or given == otel_context.get_current():
        return here
    return shop_context.Context(here.correlation_id, shop_context.new_traceparent(), root=True)


@lru_cache(1024)
def _template(name: str, kind: tracing.Kind, scope: Scope | None) -> SpanTemplate:
    return SpanTemplate(name, kind, scope=scope)


def _sequence(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(item for item in value if isinstance(item, _SCALARS))
    return str(value)
