"""Recorded spans as objects of OpenTelemetry's SDK, for assertions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2 as pb
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from observability import encoding


class MemoryExporter(InMemorySpanExporter):
    """Keeps the spans that a collector would get."""

    resource = Resource({})

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Keep a batch."""
        (exported,) = encoding.request(self.resource, spans).resource_spans
        return super().export(
            [_readable(self.resource, scope, span) for scope in exported.scope_spans for span in scope.spans]
        )


def _readable(resource: Resource, scope: pb.ScopeSpans, span: pb.Span) -> ReadableSpan:
    def known(span_id: bytes) -> SpanContext:
        state = TraceState.from_header([span.trace_state]) if span.trace_state else TraceState()
        flags = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(int.from_bytes(span.trace_id), int.from_bytes(span_id), False, flags, state)

    failed = span.status.code == pb.Status.STATUS_CODE_ERROR
    return ReadableSpan(
        span.name,
        known(span.span_id),
        known(span.parent_span_id) if span.parent_span_id else None,
        resource,
        {pair.key: _plain(pair.value) for pair in span.attributes},
        kind=SpanKind[pb.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")],
        instrumentation_scope=InstrumentationScope(scope.scope.name, scope.scope.version, scope.schema_url),
        status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
    )


def _plain(value: AnyValue) -> Any:
    kind = str(value.WhichOneof("value"))
    return tuple(map(_plain, value.array_value.values)) if kind == "array_value" else getattr(value, kind)
