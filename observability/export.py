"""Where spans go: the SDK's provider, its exporter, and an end that is bounded whatever the exporter does.

Imported by `tracing.configure` only when traces are asked for: the SDK costs a cold start much.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from observability import context, metrics

FLUSH_SECONDS = 3.0
"""How long the end of a process waits for the last spans to be taken."""


class _Ids(RandomIdGenerator):
    """A root span takes the trace id that the door has made already, which the first log lines name."""

    def generate_trace_id(self) -> int:
        current = context.current()
        return int(current.trace_id, 16) if current.root else super().generate_trace_id()


class _Counting(SpanProcessor):
    def __init__(self, service: str) -> None:
        self._ended = metrics.SPANS.labels(service, "ended")

    def on_end(self, span: ReadableSpan) -> None:
        self._ended.inc()


class _Counted(SpanExporter):
    """An exporter whose outcomes are counted."""

    def __init__(self, exporter: SpanExporter, service: str) -> None:
        self._exporter = exporter
        self._exported = metrics.SPANS.labels(service, "exported")
        self._lost = metrics.SPANS.labels(service, "lost")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            (self._exported if result is SpanExportResult.SUCCESS else self._lost).inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def provide(service: str, exporter: SpanExporter) -> TracerProvider:
    """A provider for `service` that hands spans to `exporter` in batches, in a thread of its own.

    Sampler, limits and the queue's bound follow the standard OTEL_* variables.
    """
    # The SDK's words on a dead exporter come with every batch: the counter says it better.
    for name in ("opentelemetry.sdk._shared_internal", "opentelemetry.exporter"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    resource = Resource.create({"service.name": service, "service.namespace": "shop"})
    provider = TracerProvider(resource=resource, id_generator=_Ids(), shutdown_on_exit=False)
    provider.add_span_processor(_Counting(service))
    provider.add_span_processor(BatchSpanProcessor(_Counted(exporter, service)))
    return provider


def exporter(environ: Mapping[str, str]) -> SpanExporter:
    """The OTLP exporter that the standard variables describe."""
    common = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    if environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", common).startswith("http"):
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http  # only one is needed

        return over_http.OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc  # see above

    return over_grpc.OTLPSpanExporter()


def end(provider: TracerProvider) -> None:
    """Flush, for at most FLUSH_SECONDS: an exporter may hang as long as it likes, in a thread nobody waits for."""
    ending = threading.Thread(target=provider.shutdown, name="end of tracing", daemon=True)
    ending.start()
    ending.join(FLUSH_SECONDS)
