"""Encode spans as OTLP, and convert them to the SDK's objects for exporters that need those.

In Protocol Buffers, a concatenation of messages is one message. So the parts that all spans of a template share are
encoded once; ids and times have a fixed layout. The exporter's thread encodes a whole batch at a time: encoding each
span when it ends, between the steps of an order, costs twice as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2 as pb
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope as SdkScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from observability.otel_api import ApiSpan
from observability.tracing import SCHEMA_URL, Scope

if TYPE_CHECKING:
    from observability.tracing import Attribute, Span, SpanTemplate

SCOPE = "shop"

_KEPT = 2048
_SHORT = 120  # bytes of key and text below which every length in an attribute is one byte
_FAILED = pb.Span(status=pb.Status(code=pb.Status.STATUS_CODE_ERROR)).SerializeToString()
_SCOPE = pb.ScopeSpans(scope=InstrumentationScope(name=SCOPE), schema_url=SCHEMA_URL).SerializeToString()
_RESOURCE_SCHEMA = pb.ResourceSpans(schema_url=SCHEMA_URL).SerializeToString()
_SPANS = b"\x12"  # the key of ScopeSpans.spans
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
# The fields trace_id, span_id, start_time_unix_nano and end_time_unix_nano, each after its key; and parent_span_id.
_FIXED = Struct("<2s16s2s8sBQBQ")
_PARENT = b"\x22\x08"
_ATTRIBUTES = b"\x4a"


def encode(span: Span) -> bytes:
    """Encode an ended span as the field `spans` of an opentelemetry.proto.trace.v1.ScopeSpans."""
    parts = [
        _FIXED.pack(
            b"\x0a\x10",
            bytes.fromhex(span.trace_id),
            b"\x12\x08",
            bytes.fromhex(span.span_id),
            0x39,
            span.start_time,
            0x41,
            span.end_time,
        ),
        span.template.encoded or _common(span.template),
        *[_attribute(key, value) for key, value in span.attributes.items()],
    ]
    if span.parent_id:
        parts += (_PARENT, bytes.fromhex(span.parent_id))
    if span.tracestate:
        parts.append(pb.Span(trace_state=span.tracestate).SerializeToString())
    if span.failed:
        parts.append(_FAILED)
    if isinstance(span, ApiSpan) and (span.events or span.links):
        parts.append(_details(span))
    return _field(_SPANS, b"".join(parts))


def request(resource: Resource, spans: Sequence[Span]) -> bytes:
    """Return the ExportTraceServiceRequest, serialized.

    Concatenated from bytes: nesting message objects copies them, which costs as much as the rest.
    """
    by_scope: dict[Scope | None, list[bytes]] = {None: []}
    for span in spans:
        by_scope.setdefault(span.template.scope, []).append(encode(span))
    scopes = [_field(b"\x12", _scope(scope) + b"".join(some)) for scope, some in by_scope.items() if some]
    return _field(b"\x0a", _about(resource) + b"".join(scopes) + _RESOURCE_SCHEMA)


def readable(resource: Resource, ended: Span) -> ReadableSpan:
    """Convert an ended span to the SDK's object."""
    (span,) = pb.ScopeSpans.FromString(encode(ended)).spans

    def known(span_id: bytes) -> SpanContext:
        state = TraceState.from_header([span.trace_state]) if span.trace_state else TraceState()
        return SpanContext(int.from_bytes(span.trace_id), int.from_bytes(span_id), False, _SAMPLED, state)

    return ReadableSpan(
        span.name,
        known(span.span_id),
        known(span.parent_span_id) if span.parent_span_id else None,
        resource,
        {pair.key: _plain(pair.value) for pair in span.attributes},
        kind=SpanKind[pb.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")],
        instrumentation_scope=SdkScope(*(ended.template.scope or Scope(SCOPE, "", SCHEMA_URL))),
        status=Status(
            StatusCode.ERROR if span.status.code == pb.Status.STATUS_CODE_ERROR else StatusCode.UNSET
        ),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
    )


@lru_cache(256)
def _scope(scope: Scope | None) -> bytes:
    if scope is None:
        return _SCOPE
    about = InstrumentationScope(name=scope.name, version=scope.version)
    return pb.ScopeSpans(scope=about, schema_url=scope.schema_url).SerializeToString()


def _details(span: ApiSpan) -> bytes:
    """Encode events and links, which only spans of the OpenTelemetry API have."""
    details = pb.Span()
    for name, at, attributes in span.events:
        event = details.events.add(name=name, time_unix_nano=at)
        event.attributes.extend(KeyValue.FromString(_key_value(*pair)) for pair in attributes.items())
    for other, attributes in span.links:
        ids = {"trace_id": other.trace_id.to_bytes(16), "span_id": other.span_id.to_bytes(8)}
        link = details.links.add(**ids)
        link.attributes.extend(KeyValue.FromString(_key_value(*pair)) for pair in attributes.items())
    return details.SerializeToString()


def _plain(value: AnyValue) -> Any:
    kind = str(value.WhichOneof("value"))
    return tuple(map(_plain, value.array_value.values)) if kind == "array_value" else getattr(value, kind)


def _about(resource: Resource) -> bytes:
    known = [
        (key, value) for key, value in resource.attributes.items() if isinstance(value, str | int | float)
    ]
    return _field(b"\x0a", b"".join([_field(b"\x0a", _key_value(key, value)) for key, value in known]))


def _common(template: SpanTemplate) -> bytes:
    kind = pb.Span.SpanKind.Value(f"SPAN_KIND_{template.kind}")
    named = pb.Span(name=template.name, kind=kind, flags=1).SerializeToString()
    template.encoded = named + b"".join([_attribute(*pair) for pair in template.attributes.items()])
    return template.encoded


def _attribute(key: str, value: Attribute) -> bytes:
    if not isinstance(value, str):
        return _number(key, value)
    text, named = value.encode(errors="replace"), _key(key)  # not cached: most are unique ids, of any form
    size = len(text)
    if len(named) + size < _SHORT:
        return b"\x4a%c%b\x12%c\x0a%c%b" % (len(named) + size + 4, named, size + 2, size, text)
    return _field(_ATTRIBUTES, _key_value(key, value))


@lru_cache(_KEPT)
def _key(key: str) -> bytes:
    return _field(b"\x0a", key.encode())


@lru_cache(_KEPT, typed=True)  # typed, because True and 1 are equal
def _number(key: str, value: Attribute) -> bytes:
    return _field(_ATTRIBUTES, _key_value(key, value))


def _key_value(key: str, value: object) -> bytes:
    if isinstance(value, str):
        known = _field(b"\x0a", value.encode(errors="replace"))
    elif isinstance(value, bool):
        known = AnyValue(bool_value=value).SerializeToString()
    elif isinstance(value, int):
        known = AnyValue(int_value=value).SerializeToString()
    elif isinstance(value, float):
        known = AnyValue(double_value=value).SerializeToString()
    else:
        known = _array(value).SerializeToString()
    return _key(key) + _field(b"\x12", known)


def _array(values: object) -> AnyValue:
    items = values if isinstance(values, tuple | list) else (str(values),)
    encoded = (KeyValue.FromString(_key_value("", item)).value for item in items)
    return AnyValue(array_value=ArrayValue(values=encoded))


def _field(key: bytes, data: bytes) -> bytes:
    return b"%b%b%b" % (key, _length(len(data)), data)


@lru_cache(_KEPT)
def _length(number: int) -> bytes:
    """Encode a number as a varint: seven bits a byte, the lowest first."""
    if number < 128:
        return bytes((number,))
    return bytes((number & 127 | 128,)) + _length(number >> 7)
