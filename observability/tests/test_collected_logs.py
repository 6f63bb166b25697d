"""What a real collector makes of the files that container runtimes keep."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as pb
from opentelemetry.proto.common.v1 import common_pb2

from observability.tests.test_collector import COLLECTOR, LOGS, free_port

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MOMENT = "2026-05-04T03:02:01.123456Z"
LINE = {
    "time": MOMENT, "level": "WARNING", "service": "orders", "event": "order cancelled", "correlation_id": "c-1",
    "trace_id": TRACE, "span_id": SPAN, "order_id": "o-1",
}  # fmt: skip
POD = "shop_orders-00001-x_0b8d1c2e-7f0e-4d7c-9d2e-1e6d5b2a3c4d"
COMPOSE = yaml.safe_load((LOGS.parents[2] / "compose.yaml").read_text())["services"]["log-collector"]["environment"]

Record = dict[str, str]

pytestmark = pytest.mark.skipif(COLLECTOR is None, reason="there is no otelcol-contrib, nor OTELCOL")


class Receiver(BaseHTTPRequestHandler):
    """VictoriaLogs' for OTLP."""

    records: list[Record]

    def do_POST(self) -> None:
        body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
        sent = pb.ExportLogsServiceRequest.FromString(body)
        for resource in sent.resource_logs:
            for record in (r for scope in resource.scope_logs for r in scope.log_records):
                self.records.append({
                    **text(resource.resource.attributes), **text(record.attributes),
                    "body": record.body.string_value, "severity": record.severity_text,
                    "trace": record.trace_id.hex(), "span": record.span_id.hex(), "time": str(record.time_unix_nano),
                })  # fmt: skip
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


def text(attributes: Iterable[common_pb2.KeyValue]) -> Record:
    """Those that are strings."""
    return {attribute.key: attribute.value.string_value for attribute in attributes}


@contextmanager
def collecting(folder: Path, **settings: str) -> Iterator[list[Record]]:
    """A collector of `folder`; what it has sent so far."""
    assert COLLECTOR is not None
    records: list[Record] = []
    receiver = type("Here", (Receiver,), {"records": records})
    server = ThreadingHTTPServer(("127.0.0.1", 0), receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environ = {
        "LOGS_ENDPOINT": f"127.0.0.1:{server.server_port}", "HEALTH_ENDPOINT": f"127.0.0.1:{free_port()}",
        "CHECKPOINTS": str(folder), **settings,
    }  # fmt: skip
    with (folder / "collector.log").open("wb") as log:
        process = subprocess.Popen([COLLECTOR, "--config", LOGS], env=environ, stdout=log, stderr=log)
        try:
            yield records
        finally:
            process.terminate()
            process.wait(20)
            server.shutdown()
            server.server_close()


def arrived(records: list[Record], count: int) -> dict[str, Record]:
    """By body, as soon as there are `count`."""
    deadline = time.monotonic() + 20
    while len(records) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return {record["body"]: record for record in records}


def nodes(folder: Path) -> Path:
    """A pod's file as containerd keeps it: a line of ours, one that is cut in two, one that no logger wrote."""
    file = folder / POD / "user-container" / "0.log"
    file.parent.mkdir(parents=True)
    whole = json.dumps({**LINE, "event": "long"})
    lines = [("stdout", "F", json.dumps(LINE)), ("stdout", "P", whole[:60]), ("stdout", "F", whole[60:])]
    lines.append(("stderr", "F", "Fatal Python error: Segmentation fault"))
    file.write_text("".join(f"{MOMENT} {stream} {tag} {line}\n" for stream, tag, line in lines))
    return file


def test_a_line_of_a_pod_keeps_its_trace_its_level_its_time_and_all_its_fields(tmp_path: Path) -> None:
    nodes(tmp_path)
    with collecting(tmp_path, CONTAINER_LOGS=f"{tmp_path}/shop_*/*/*.log") as records:
        found = arrived(records, 3)
    line = found["order cancelled"]
    assert (line["trace"], line["span"], line["severity"]) == (TRACE, SPAN, "WARN")
    assert (line["service.name"], line["correlation_id"], line["order_id"]) == ("orders", "c-1", "o-1")
    assert (line["k8s.pod.name"], line["k8s.namespace.name"]) == ("orders-00001-x", "shop")
    assert line["time"] == "1777863721123456000"
    assert not line.keys() & {"trace_id", "span_id", "level", "event", "service"}, "nothing is kept twice"


def test_what_no_logger_wrote_and_what_was_cut_in_two_arrive_whole(tmp_path: Path) -> None:
    nodes(tmp_path)
    with collecting(tmp_path, CONTAINER_LOGS=f"{tmp_path}/shop_*/*/*.log") as records:
        found = arrived(records, 3)
    assert found["Fatal Python error: Segmentation fault"]["k8s.pod.name"] == "orders-00001-x"
    assert found["long"]["trace"] == TRACE


def test_a_collector_that_starts_again_goes_on_where_it_was(tmp_path: Path) -> None:
    file = nodes(tmp_path)
    with collecting(tmp_path, CONTAINER_LOGS=f"{tmp_path}/shop_*/*/*.log") as records:
        arrived(records, 3)
    with file.open("a") as more:
        more.write(f"{MOMENT} stdout F {json.dumps({**LINE, 'event': 'later'})}\n")
    with collecting(tmp_path, CONTAINER_LOGS=f"{tmp_path}/shop_*/*/*.log") as records:
        assert arrived(records, 1).keys() == {"later"}


def test_of_what_docker_keeps_only_the_projects_own_is_passed_on(tmp_path: Path) -> None:
    file = tmp_path / "containers" / "1" / "1-json.log"
    file.parent.mkdir(parents=True)
    mine, other = ({"com.docker.compose.project": name} for name in ("shop", "other"))
    kept = [
        {"log": json.dumps(LINE) + "\n", "stream": "stdout", "attrs": mine, "time": MOMENT},
        {"log": "foreign\n", "stream": "stdout", "attrs": other, "time": MOMENT},
        {"log": "nobody's\n", "stream": "stdout", "time": MOMENT},
        {
            "log": json.dumps({**LINE, "event": "last"}) + "\n",
            "stream": "stdout",
            "attrs": mine,
            "time": MOMENT,
        },
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in kept))
    given = {name: COMPOSE[name] for name in ("PODS_BY_PATH", "DROP")}
    given["DROP"] = given["DROP"].replace("${COMPOSE_PROJECT_NAME:-shop}", "shop")
    with collecting(tmp_path, CONTAINER_LOGS=f"{file.parents[1]}/*/*-json.log", **given) as records:
        found = arrived(records, 2)
    assert found.keys() == {"order cancelled", "last"}
    assert found["last"]["trace"] == TRACE
    assert os.fspath(file) == found["last"]["log.file.path"]
