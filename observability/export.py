"""Where spans go: sampler, queue and exporter by the SDK, and an end that is bounded whatever the exporter does.

Imported by `tracing.configure` only when traces are asked for: the SDK costs a cold start much.
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

from observability import context, metrics
from observability.tracing import SCHEMA_URL, Span
from observability.version import VERSION

log = logging.getLogger("shop.tracing")

FLUSH_SECONDS = 3.0
"""How long the end of a process waits for the last spans to be taken."""


class OwnSpanExporter:
    """What an exporter is that takes spans of ours; it is told whose they are."""

    resource: Resource


class LazyExporter(OwnSpanExporter, SpanExporter):
    """An exporter that is made, by `make`, when the first batch is due: a cold start does without its libraries."""

    def __init__(self, make: Callable[[], OwnSpanExporter]) -> None:
        self._make = make
        self._made: Any = None

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        if self._made is None:
            try:
                made = self._make()
            except Exception:
                log.exception("no_exporter")  # with every batch, as long as it lasts
                raise
            made.resource, self._made = self.resource, made
        result: SpanExportResult = self._made.export(spans)
        return result

    def shutdown(self) -> None:
        if self._made is not None:
            self._made.shutdown()


class _SdkSpanExporter(OwnSpanExporter, SpanExporter):
    """Any other of the SDK's exporters, which gets the SDK's objects."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        from observability.encoding import readable  # not before there is a span

        return self._exporter.export([readable(self.resource, span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _CountingExporter(SpanExporter):
    """An exporter whose outcomes are counted."""

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


class Provider:
    """Decides what is recorded, and takes what has ended. `follows`: a child is recorded where its parent is."""

    def __init__(self, service: str, exporter: SpanExporter) -> None:
        resource = Resource.create(
            {"service.name": service, "service.namespace": "shop", "service.version": VERSION}, SCHEMA_URL
        )
        sending = exporter if isinstance(exporter, OwnSpanExporter) else _SdkSpanExporter(exporter)
        sending.resource = resource
        # The SDK's provider reads OTEL_TRACES_SAMPLER; it makes no span.
        self._sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler
        self.follows = isinstance(self._sampler, ParentBased)
        self._dropped = metrics.SPANS.labels(service, "dropped")
        self._queue: Any = BatchSpanProcessor(_CountingExporter(sending, service))
        # It tells nobody what it drops, and its door asks for the SDK's spans.
        inside: Any = self._queue._batch_processor  # noqa: SLF001 - as said
        self._put, self._waiting = inside.emit, inside._queue  # noqa: SLF001 - as said

    def sampled(self, parent: context.Context, trace_id: str, name: str) -> bool:
        """Whether to record a span of this trace under `parent`; not to be asked where it `follows` a parent."""
        known = Context()
        if not parent.root:
            flags = trace.TraceFlags(int(parent.flags, 16))
            caller = trace.SpanContext(int(trace_id, 16), int(parent.span_id, 16), True, flags)
            known = trace.set_span_in_context(trace.NonRecordingSpan(caller), known)
        decision: Any = self._sampler.should_sample(known, int(trace_id, 16), name).decision
        return bool(decision.is_sampled())

    def end(self, span: Span) -> None:
        """Queue it, or drop it when the queue is full; never waits."""
        if len(self._waiting) == self._waiting.maxlen:
            self._dropped.inc()
        self._put(span)

    def force_flush(self) -> None:
        """Export what is queued, now."""
        self._queue.force_flush()

    def shutdown(self) -> None:
        """Export what is queued, and end the exporter."""
        self._queue.shutdown()


def provide(service: str, exporter: SpanExporter) -> Provider:
    """A provider for `service` that hands spans to `exporter` in batches, in a thread of its own.

    Sampler and the queue's bound follow the standard OTEL_* variables.
    """
    # The SDK's words on a dead exporter come with every batch: the counter says it better.
    for name in ("opentelemetry.sdk._shared_internal", "opentelemetry.exporter"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return Provider(service, exporter)


def exporter(environ: Mapping[str, str]) -> LazyExporter:
    """The OTLP exporter that the standard variables describe."""

    def make() -> OwnSpanExporter:
        if environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", common).startswith("http"):
            from observability.export_http import HttpExporter as Exporter
        else:
            from observability.export_grpc import GrpcExporter as Exporter  # type: ignore[assignment] # one of the two
        return Exporter()

    common = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    return LazyExporter(make)


def end(provider: Provider) -> None:
    """Flush, for at most FLUSH_SECONDS: an exporter may hang as long as it likes, in a thread nobody waits for."""
    ending = threading.Thread(target=provider.shutdown, name="end of tracing", daemon=True)
    ending.start()
    ending.join(FLUSH_SECONDS)
