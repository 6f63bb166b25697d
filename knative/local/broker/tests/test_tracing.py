"""With a tracer each delivery is a span between the event's trace and the subscriber."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from events.tests.support import subscribed, until
from knative.local.broker.tests.support import broker, running, trigger
from observability import export, tracing
from observability.tests.spans import MemoryExporter

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryExporter]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    exporter = MemoryExporter()
    provider = export.provide("broker", exporter)
    tracing.install(provider)
    yield exporter
    tracing.install(None)
    provider.shutdown()


async def test_a_delivery_is_a_span_of_the_events_trace(tmp_path: Path, spans: MemoryExporter) -> None:
    given = f"00-{TRACE}-00f067aa0ba902b7-01"
    async with subscribed() as subscriber, running(tmp_path, broker(), trigger("t", subscriber.url)) as it:
        await it.post(traceparent=given)
        await until(lambda: len(spans.get_finished_spans()) == 1)
    (span,) = spans.get_finished_spans()
    assert span.name == "deliver shop/t"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    got = subscriber.received[0].headers
    assert got["ce-traceparent"] == given
    assert got["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
