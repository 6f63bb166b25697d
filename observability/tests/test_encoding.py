"""Spans as OTLP messages."""

from __future__ import annotations

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2 as pb
from opentelemetry.sdk.resources import Resource

from observability import context, encoding, tracing

PARENT = context.Context("corr-0001", f"00-{'a1' * 16}-{'b2' * 8}-01", "vendor=1")
ORDER = tracing.SpanTemplate("transact Order", "CLIENT")
RESOURCE = Resource({"service.name": "orders", "service.namespace": "shop"})


class Kept:
    """A provider that records all, and keeps it."""

    follows = False

    def __init__(self) -> None:
        self.spans: list[tracing.Span] = []

    def sampled(self, *_: object) -> bool:
        """Yes."""
        return True

    def end(self, span: tracing.Span) -> None:
        """Keep it."""
        self.spans.append(span)


def recorded(
    attributes: dict[str, tracing.Attribute] | None = None,
    parent: context.Context = PARENT,
    error: bool = False,
) -> pb.Span:
    """One span that has gone to a collector."""
    kept = Kept()
    with tracing.Span(kept, ORDER, attributes, parent) as span:  # type: ignore[arg-type] # a fake
        if error:
            tracing.mark_failed(span, "UNAVAILABLE")
    request = encoding.request(RESOURCE, kept.spans)
    return request.resource_spans[0].scope_spans[0].spans[0]


def test_a_span_has_its_ids_times_name_and_kind() -> None:
    span = recorded()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == ("a1" * 16, "b2" * 8)
    assert len(span.span_id) == 8
    assert (span.name, span.kind, span.flags) == ("transact Order", pb.Span.SPAN_KIND_CLIENT, 1)
    assert span.trace_state == "vendor=1"
    assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    assert span.status.code == pb.Status.STATUS_CODE_UNSET


def test_a_root_has_no_parent() -> None:
    assert recorded(parent=context.incoming(None, None)).parent_span_id == b""


def test_a_failure_is_its_status() -> None:
    span = recorded(error=True)
    assert span.status.code == pb.Status.STATUS_CODE_ERROR
    assert span.attributes[0].value.string_value == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("text", "string_value"),
        ("", "string_value"),
        ("ö" * 200, "string_value"),
        ("x" * 70_000, "string_value"),
        (True, "bool_value"),
        (1, "int_value"),
        (1.0, "double_value"),
        (False, "bool_value"),
        (-3, "int_value"),
        (0, "int_value"),
    ],
)
def test_an_attribute_keeps_its_value_and_type(value: tracing.Attribute, field: str) -> None:
    (attribute,) = recorded({"a.key": value}).attributes
    assert attribute.key == "a.key"
    assert attribute.value.WhichOneof("value") == field
    assert getattr(attribute.value, field) == value


def test_text_that_is_no_unicode_does_no_harm() -> None:
    assert recorded({"messaging.message.id": "id-\ud800"}).attributes[0].value.string_value == "id-?"


def test_a_request_says_whose_the_spans_are_and_holds_them_all() -> None:
    kept = Kept()
    for number in range(300):
        with tracing.Span(kept, tracing.SpanTemplate(f"work {number}", "INTERNAL"), {}, PARENT):  # type: ignore[arg-type] # a fake
            pass
    sent = encoding.request(RESOURCE, kept.spans)
    (about,) = sent.resource_spans
    assert {pair.key: pair.value.string_value for pair in about.resource.attributes} == dict(RESOURCE.attributes)
    (scope,) = about.scope_spans
    assert scope.scope.name == encoding.SCOPE
    assert [span.name for span in scope.spans] == [f"work {number}" for number in range(300)]
