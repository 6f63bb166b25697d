"""Queue and export spans with the SDK's queue and exporters, and shut down in bounded time.

`tracing.configure` imports this module only if traces are requested: the SDK makes a cold start much slower.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased

from observability import context, metrics, otel_api
from observability.tracing import SCHEMA_URL, Span
from observability.version import VERSION


class Sampler:
    """The SDK's sampler. If `follows` is true, a child span is recorded if its parent is."""

    def __init__(self) -> None:
        # Only used to build the sampler from the OTEL_* variables.
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        self.follows = isinstance(self._sampler, ParentBased)

    def sampled(self, parent: context.Context, trace_id: str, name: str) -> bool:
        """Ask the sampler whether to record a new span.

        If `follows` is true, call this only for root spans: other spans inherit the decision of their parent.
        """
        known = Context()
        if not parent.root:
            flags = trace.TraceFlags(int(parent.flags, 16))
            caller = trace.SpanContext(int(trace_id, 16), int(parent.span_id, 16), True, flags)
            known = trace.set_span_in_context(trace.NonRecordingSpan(caller), known)
        decision: Any = self._sampler.should_sample(known, int(trace_id, 16), name).decision
        return bool(decision.is_sampled())


log = logging.getLogger("shop.tracing")

FLUSH_SECONDS = 3.0
"""How long the end of a process waits for the export of the last spans."""


class OwnSpanExporter:
    """An exporter of `observability.tracing.Span` objects; `resource` is set before the first export."""

    resource: Resource


class LazyExporter(OwnSpanExporter, SpanExporter):
    """Creates its exporter with `make` when the first batch is due: a cold start does not import its libraries."""

    def __init__(self, make: Callable[[], OwnSpanExporter]) -> None:
        self._make = make
        self._made: Any = None

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        if self._made is None:
            try:
                made = self._make()
            except Exception:
                log.exception("no_exporter")  # logged with each batch until it works
                raise
            made.resource, self._made = self.resource, made
        result: SpanExportResult = self._made.export(spans)
        return result

    def shutdown(self) -> None:
        if self._made is not None:
            self._made.shutdown()


class _CountingExporter(SpanExporter):
    """Counts the outcomes of an exporter."""

    def __init__(self, exporter: SpanExporter, service: str) -> None:
        self._exporter = exporter
        self._exported = metrics.SPANS.labels(service, "exported")
        self._lost = metrics.SPANS.labels(service, "lost")

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            (self._exported if result is SpanExportResult.SUCCESS else self._lost).inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class Provider(Sampler):
    """Samples and queues spans."""

    def __init__(self, service: str, exporter: Any) -> None:
        super().__init__()
        exporter.resource = Resource.create(
            {"service.name": service, "service.namespace": "shop", "service.version": VERSION}, SCHEMA_URL
        )
        self._dropped = metrics.SPANS.labels(service, "dropped")
        self._queue: Any = BatchSpanProcessor(_CountingExporter(exporter, service))
        # The SDK does not report dropped spans, and its public method expects the SDK's spans.
        inside: Any = self._queue._batch_processor  # noqa: SLF001 - as said
        self._put, self._waiting = inside.emit, inside._queue  # noqa: SLF001 - as said

    def end(self, span: Span) -> None:
        """Queue an ended span, or drop the oldest one if the queue is full; never waits."""
        if len(self._waiting) == self._waiting.maxlen:
            self._dropped.inc()
        self._put(span)

    def force_flush(self) -> None:
        """Export all queued spans now."""
        self._queue.force_flush()

    def shutdown(self) -> None:
        """Export all queued spans, and shut the exporter down."""
        self._queue.shutdown()


def provide(service: str, exporter: Any) -> Provider:
    """Return a provider for `service` that gives batches of spans to `exporter` in a thread of its own.

    Sampler and queue follow the standard OTEL_* variables. Also makes the OpenTelemetry API record with it.
    """
    # The SDK logs a failing exporter with each batch; the counter is enough.
    for name in ("opentelemetry.sdk._shared_internal", "opentelemetry.exporter"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    otel_api.register()
    return Provider(service, exporter)


def exporter(environ: Mapping[str, str]) -> LazyExporter:
    """Return the OTLP exporter that the standard variables describe."""

    def make() -> OwnSpanExporter:
        if environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", common).startswith("http"):
            from observability.export_http import HttpExporter as Exporter
        else:
            from observability.export_grpc import GrpcExporter as Exporter  # type: ignore[assignment] # one of the two
        return Exporter()

    common = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    return LazyExporter(make)


def end(provider: Provider) -> None:
    """Flush for at most FLUSH_SECONDS; a hanging exporter stays behind in a daemon thread."""
    ending = threading.Thread(target=provider.shutdown, name="end of tracing", daemon=True)
    ending.start()
    ending.join(FLUSH_SECONDS)
