"""Decode OTLP spans (opentelemetry/proto/trace/v1) into the fields that the console shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

MAPPINGS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


class NotSpans(ValueError):
    """The request body is not a valid ExportTraceServiceRequest."""


class Span(NamedTuple):
    """One span. Ids are in hexadecimal (`parent` is empty for a root); times are Unix times in seconds."""

    trace: str
    id: str
    parent: str
    service: str
    name: str
    kind: str
    start: float
    end: float
    failed: bool
    attributes: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """Return the duration, which is never negative, even if the end is before the start."""
        return max(0.0, self.end - self.start)


def decode(body: bytes) -> Iterator[Span]:
    """Decode the spans of an OTLP/HTTP request in protobuf. Raises NotSpans."""
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        raise NotSpans("the body is no ExportTraceServiceRequest") from None
    for resource in request.resource_spans:
        service = str(_attributes(resource.resource.attributes).get("service.name", "unknown"))
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    service=service,
                    name=span.name,
                    kind=MAPPINGS[span.kind] if span.kind < len(MAPPINGS) else MAPPINGS[0],
                    start=span.start_time_unix_nano / 1e9,
                    end=span.end_time_unix_nano / 1e9,
                    failed=span.status.code == Status.STATUS_CODE_ERROR,
                    attributes=_attributes(span.attributes),
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    """Return the scalar attributes. The platform's spans have no others."""
    found = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if kind in ("string_value", "int_value", "bool_value", "double_value"):
            found[pair.key] = getattr(pair.value, kind)
    return found
