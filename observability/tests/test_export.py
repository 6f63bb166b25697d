"""Sampling, and an exporter that is dead or hangs: it costs neither work nor the end of the process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from observability import context, export, metrics, tracing
from observability.tests.spans import MemoryExporter

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ROOT = Path(__file__).parents[2]
TO_A_DEAD_ENDPOINT = """
import json, time
from observability import context, metrics, tracing
end = tracing.configure("probe")
context.enter(context.incoming(None, None))
start = time.thread_time()  # not the clock: others use this machine too
for _ in range(5000):
    with tracing.SpanTemplate("work", "INTERNAL").span():
        pass
worked = time.thread_time() - start
start = time.monotonic()
end()
print(json.dumps([worked, time.monotonic() - start]))
"""
BEFORE_A_BATCH = """
import sys
from observability import context, tracing
end = tracing.configure("probe")
with context.use(context.incoming(None, None)), tracing.SpanTemplate("work", "INTERNAL").span():
    print(*sys.modules)
end()
"""
Install = Callable[[str, SpanExporter], None]


@pytest.fixture
def install() -> Iterator[Install]:
    def install(service: str, exporter: SpanExporter) -> None:
        tracing.install(export.provide(service, exporter))

    yield install
    tracing.install(None)


def probe(code: str, port: int) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, which traces to this port."""
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=False, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)


class Hanging(SpanExporter):
    """Takes a minute for each batch."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        time.sleep(60)
        return SpanExportResult.FAILURE


@pytest.mark.parametrize(
    ("sampler", "argument", "traceparent", "recorded"),
    [
        ("", "", None, True),
        ("", "", f"00-{TRACE}-00f067aa0ba902b7-01", True),
        ("", "", f"00-{TRACE}-00f067aa0ba902b7-00", False),
        ("parentbased_always_off", "", None, False),
        ("parentbased_always_off", "", f"00-{TRACE}-00f067aa0ba902b7-03", True),
        ("parentbased_traceidratio", "0", None, False),
        ("parentbased_traceidratio", "1", None, True),
        ("always_on", "", f"00-{TRACE}-00f067aa0ba902b7-00", True),
    ],
)
def test_whether_a_trace_is_recorded_follows_the_caller_and_else_the_variables(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    argument: str,
    traceparent: str | None,
    recorded: bool,
) -> None:
    for name, value in (("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)):
        if value:
            monkeypatch.setenv(name, value)
    install("sampled", MemoryExporter())
    with (
        context.use(context.incoming(None, traceparent)) as outside,
        tracing.SpanTemplate("work", "SERVER").span(),
    ):
        inside = context.current()
        assert inside.sampled is recorded
        assert inside.trace_id == outside.trace_id
        assert inside.span_id != outside.span_id
        assert inside.correlation_id == outside.correlation_id


def test_the_flags_that_say_more_than_recorded_travel_on(install: Install) -> None:
    install("flags", MemoryExporter())
    with (
        context.use(context.incoming(None, f"00-{TRACE}-00f067aa0ba902b7-03")),
        tracing.SpanTemplate("work", "SERVER").span(),
    ):
        assert context.current().traceparent.endswith("-03")


def test_the_child_of_what_is_not_recorded_is_not_recorded_either(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    install("sampled", MemoryExporter())
    with (
        context.use(context.incoming(None, None)),
        tracing.SpanTemplate("outer", "SERVER").span(),
        tracing.SpanTemplate("inner", "CLIENT").span(),
    ):
        assert not context.current().sampled


def test_a_hanging_exporter_holds_up_neither_work_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "FLUSH_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    provider = export.provide("hanging", Hanging())
    tracing.install(provider)
    start = time.monotonic()
    with context.use(context.incoming(None, None)):
        for _ in range(1000):
            with tracing.SpanTemplate("work", "INTERNAL").span():
                pass
    tracing.install(None)
    export.end(provider)
    assert time.monotonic() - start < 10
    count = {name: metrics.SPANS.labels("hanging", name)._value.get() for name in ("dropped", "exported")}
    assert 1000 - 100 - 10 <= count["dropped"] <= 1000 - 100  # what fits waits, and one batch is under way
    assert count["exported"] == 0


def test_a_dead_endpoint_costs_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    ran = probe(TO_A_DEAD_ENDPOINT, port)
    worked, ended = json.loads(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    assert worked < 5  # a millisecond each, of what takes a tenth of one
    assert ended < export.FLUSH_SECONDS + 5


def test_a_start_does_without_the_exporters_libraries() -> None:
    ran = probe(BEFORE_A_BATCH, 9)
    assert ran.returncode == 0, ran.stderr
    loaded = ran.stdout.splitlines()[0].split()
    assert "opentelemetry.sdk.trace" in loaded
    assert not {"grpc", "google.protobuf", "opentelemetry.exporter", "observability.encoding"} & set(loaded)


def test_spans_of_an_exporter_that_cannot_be_made_are_lost_and_it_is_said_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> export.OwnSpanExporter:
        raise ValueError("no such compression")

    provider = export.provide("unmade", export.LazyExporter(broken))
    tracing.install(provider)
    with context.use(context.incoming(None, None)), tracing.SpanTemplate("work", "INTERNAL").span():
        pass
    tracing.install(None)
    export.end(provider)
    assert metrics.SPANS.labels("unmade", "lost")._value.get() == 1
    (record,) = [r for r in caplog.records if r.getMessage() == "no_exporter"]
    assert record.exc_info
    assert "no such compression" in str(record.exc_info[1])
