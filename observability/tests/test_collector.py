"""The collectors' configurations: by what their components document, and that of traces in a real collector."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

FOLDER = Path(__file__).parents[1] / "collector"
FILE, LOGS = FOLDER / "collector.yaml", FOLDER / "logs.yaml"
COLLECTOR = os.environ.get("OTELCOL") or shutil.which("otelcol-contrib")
ERROR = trace_pb2.Status.STATUS_CODE_ERROR
SECOND = 1_000_000_000
ORDINARY = 400

# By the components' README files at v0.150.0.
DOCUMENTED = {
    "health_check": {"endpoint", "path", "tls", "response_body"},
    "otlp": {"protocols", "endpoint", "tls", "sending_queue", "retry_on_failure", "compression", "headers", "timeout"},
    "memory_limiter": {"check_interval", "limit_mib", "spike_limit_mib", "limit_percentage"},
    "attributes": {"actions", "include", "exclude"},
    "redaction": {"allow_all_keys", "allowed_keys", "ignored_keys", "blocked_values", "summary"},
    "tail_sampling": {
        "decision_wait", "num_traces", "expected_new_traces_per_sec", "decision_cache", "policies", "sampling_strategy",
    },
    "file_storage": {"directory", "timeout", "compaction", "fsync", "create_directory"},
    "file_log": {"include", "exclude", "start_at", "include_file_path", "storage", "retry_on_failure", "operators"},
    "otlp_http": {"endpoint", "logs_endpoint", "tls", "headers", "timeout", "sending_queue", "retry_on_failure"},
    "batch": {"send_batch_size", "timeout", "send_batch_max_size"},
}  # fmt: skip
POLICIES = {
    "status_code": {"status_codes"},
    "latency": {"threshold_ms", "upper_threshold_ms"},
    "probabilistic": {"hash_salt", "sampling_percentage"},
}


both = pytest.mark.parametrize("file", [FILE, LOGS], ids=lambda file: file.stem)


def config(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


@both
@pytest.mark.parametrize("section", ["extensions", "receivers", "processors", "exporters"])
def test_components_are_given_only_what_they_document(file: Path, section: str) -> None:
    for name, given in config(file)[section].items():
        assert not set(given) - DOCUMENTED[name.partition("/")[0]], name


def test_policies_are_given_only_what_they_document() -> None:
    for policy in config(FILE)["processors"]["tail_sampling"]["policies"]:
        assert set(policy) == {"name", "type", policy["type"]}
        assert not set(policy[policy["type"]]) - POLICIES[policy["type"]]


@both
def test_all_that_is_configured_is_used_and_memory_is_limited_first(file: Path) -> None:
    whole = config(file)
    (pipeline,) = whole["service"]["pipelines"].values()
    assert set(whole["service"]["extensions"]) == set(whole["extensions"])
    for section in ("receivers", "processors", "exporters"):
        assert set(pipeline[section]) == set(whole[section])
    assert (pipeline["processors"][0], pipeline["processors"][-1]) == ("memory_limiter", "batch")


class Sink(trace_service_pb2_grpc.TraceServiceServicer):
    """In Jaeger's place."""

    def __init__(self) -> None:
        self.spans: list[trace_pb2.Span] = []

    def Export(self, request: pb.ExportTraceServiceRequest, _: Any) -> pb.ExportTraceServiceResponse:
        self.spans += [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
        return pb.ExportTraceServiceResponse()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def span(number: int, **fields: Any) -> trace_pb2.Span:
    """One trace of one span, of 20 ms unless told otherwise."""
    now = time.time_ns()
    took = fields.pop("took", SECOND // 50)
    return trace_pb2.Span(
        trace_id=number.to_bytes(16), span_id=number.to_bytes(8), name=f"span {number}",
        start_time_unix_nano=now - took, end_time_unix_nano=now, **fields,
    )  # fmt: skip


def attribute(key: str, value: str) -> common_pb2.KeyValue:
    return common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(string_value=value))


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, trace_pb2.Span]]:
    """What arrives of a failed trace (1), a slow one (2), one with secrets (3, failed) and many ordinary ones."""
    if COLLECTOR is None:
        pytest.skip("there is no otelcol-contrib, nor OTELCOL")
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server  # generated, without types
    sink, server, port = Sink(), grpc.server(ThreadPoolExecutor(2)), free_port()
    add(sink, server)
    environ = {
        "JAEGER_ENDPOINT": f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}",
        "OTLP_ENDPOINT": f"127.0.0.1:{port}",
        "HEALTH_ENDPOINT": f"127.0.0.1:{free_port()}",
        "DECISION_WAIT": "1s",
    }
    server.start()
    log = (tmp_path_factory.mktemp("collector") / "log").open("wb")
    process = subprocess.Popen([COLLECTOR, "--config", FILE], env=environ, stdout=log, stderr=log)
    secrets = [
        attribute("http.request.header.authorization", "Bearer x"),
        attribute("url.query", "email=a"),
        attribute(
            "note",
            "write to ann@example.com, token eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c3IifQ.c2ln, pays by tok_ok",
        ),
        attribute("messaging.message.id", "kept"),
    ]
    failed = trace_pb2.Status(code=ERROR)
    spans = [span(1, status=failed), span(2, took=6 * SECOND), span(3, status=failed, attributes=secrets)]
    spans += [span(number * 7919) for number in range(1000, 1000 + ORDINARY)]
    sent = trace_pb2.ResourceSpans(scope_spans=[trace_pb2.ScopeSpans(spans=spans)])
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            make: Any = trace_service_pb2_grpc.TraceServiceStub
            stub = make(channel)
            stub.Export(pb.ExportTraceServiceRequest(resource_spans=[sent]), wait_for_ready=True, timeout=30)
        deadline = time.monotonic() + 20
        while len(sink.spans) < 10 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        assert process.wait(20) == 0, Path(log.name).read_text()
        yield {int.from_bytes(found.trace_id): found for found in sink.spans}
    finally:
        process.kill()
        server.stop(0).wait()
        log.close()


def test_failed_and_slow_traces_survive_and_a_tenth_of_the_others(passed: dict[int, trace_pb2.Span]) -> None:
    assert {1, 2, 3} <= set(passed)
    assert 0 < len(passed) - 3 < ORDINARY / 4


def test_secrets_are_taken_out_on_the_way(passed: dict[int, trace_pb2.Span]) -> None:
    left = {pair.key: pair.value.string_value for pair in passed[3].attributes}
    assert left.keys() == {"note", "messaging.message.id"}
    assert left["messaging.message.id"] == "kept"
    assert not [word for word in ("@", "eyJ", "tok_") if word in left["note"]]
