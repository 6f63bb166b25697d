"""Spans of the plain OpenTelemetry API join our traces, and are exported with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from observability import context, encoding, export, tracing
from observability.tests.spans import MemoryExporter

HANDLER = tracing.SpanTemplate("process shop.order.placed.v1", "CONSUMER")
CALL = tracing.SpanTemplate("products/Reserve", "CLIENT")


class Recorder:
    """An installed provider, and what it exported."""

    def __init__(self) -> None:
        self.exporter = MemoryExporter()
        self.provider = export.provide("otel-api", self.exporter)
        tracing.install(self.provider)

    def spans(self) -> dict[str, ReadableSpan]:
        """The exported spans by name."""
        self.provider.force_flush()
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    yield Recorder()
    tracing.install(None)


def parent_of(spans: dict[str, ReadableSpan], child: str) -> str:
    """The name of the span's parent, "" for none of these."""
    parent = spans[child].parent
    ids = {span.context.span_id: name for name, span in spans.items() if span.context}
    return ids.get(parent.span_id, "") if parent else ""


def test_a_span_inside_a_handler_is_a_child_of_the_handlers_span_and_its_parent_in_turn(
    recorder: Recorder,
) -> None:
    tracer = trace.get_tracer("copier", "1.2")
    with context.use(context.incoming("corr-0001", None)), HANDLER.span():
        with tracer.start_as_current_span("own work", attributes={"sizes": [1, 2], "kind": "x"}) as span:
            assert trace.get_current_span() is span
            assert context.current().span_id == f"{span.get_span_context().span_id:016x}"
            assert context.current().correlation_id == "corr-0001"
            with CALL.span(), tracer.start_as_current_span("inside the call"):
                pass
        assert context.current().span_id != f"{span.get_span_context().span_id:016x}"
    spans = recorder.spans()
    assert parent_of(spans, "own work") == HANDLER.name
    assert parent_of(spans, CALL.name) == "own work"
    assert parent_of(spans, "inside the call") == CALL.name
    assert spans["own work"].attributes == {"sizes": (1, 2), "kind": "x"}
    scope = spans["own work"].instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("copier", "1.2")


def test_a_library_that_activates_its_span_by_itself_joins_too(recorder: Recorder) -> None:
    tracer = trace.get_tracer("library")
    with context.use(context.incoming(None, None)), HANDLER.span():
        outer = tracer.start_span("outer", kind=trace.SpanKind.CLIENT)
        with trace.use_span(outer, end_on_exit=True):
            tracer.start_span("inner").end()
    spans = recorder.spans()
    assert (parent_of(spans, "outer"), parent_of(spans, "inner")) == (HANDLER.name, "outer")
    assert spans["outer"].kind is trace.SpanKind.CLIENT


def test_an_exception_marks_the_span_without_its_message(recorder: Recorder) -> None:
    tracer = trace.get_tracer("copier")
    with pytest.raises(ValueError, match="secret"), tracer.start_as_current_span("fails"):
        raise ValueError("secret")
    span = recorder.spans()["fails"]
    assert span.status.status_code is trace.StatusCode.ERROR
    assert "secret" not in span.to_json()


def test_what_is_not_sampled_is_not_exported(recorder: Recorder) -> None:
    unsampled = context.incoming(None, f"00-{'a1' * 16}-{'b2' * 8}-00")
    with context.use(unsampled), trace.get_tracer("copier").start_as_current_span("unsampled") as span:
        assert not span.is_recording()
    assert "unsampled" not in recorder.spans()


def test_events_links_and_scope_reach_a_collector() -> None:
    sent: list[tracing.Span] = []
    recorder = Recorder()
    recorder.provider.end = sent.append  # type: ignore[assignment, method-assign] # instead of the queue
    other = trace.SpanContext(1, 2, is_remote=False)
    with trace.get_tracer("copier").start_as_current_span("work", links=[trace.Link(other)]) as span:
        span.add_event("halfway", {"done": 0.5})
    tracing.install(None)
    data = encoding.request(Resource({}), sent)
    (scope,) = data.resource_spans[0].scope_spans
    (work,) = scope.spans
    assert (scope.scope.name, work.name) == ("copier", "work")
    assert (work.events[0].name, work.events[0].attributes[0].value.double_value) == ("halfway", 0.5)
    assert work.links[0].span_id == (2).to_bytes(8)


def test_with_tracing_off_the_api_does_nothing() -> None:
    with trace.get_tracer("copier").start_as_current_span("nothing") as span:
        assert not span.is_recording()
