"""The console over HTTP: OTLP in, JSON and pages out."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Otlp
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from knative.local.console import memory
from knative.local.console.app import create_app

NOW = 1_800_000_000.0
ERASED_USER_ID = "http://127.0.0.1:9"


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    state = {"ready": True, "parts": {"orders": {"pid": 7, "ready": True, "restarts": 2, "url": "http://o"}}}
    (tmp_path / "platform.json").write_text(json.dumps(state))
    app = create_app(tmp_path / "platform.json", ERASED_USER_ID, lambda: "", clock=lambda: NOW)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8091") as client:
        yield client


def request(service: str, *spans: Otlp) -> bytes:
    sent = ExportTraceServiceRequest()
    resource = sent.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    resource.scope_spans.add().spans.extend(spans)
    return sent.SerializeToString()


def span(number: int, name: str, kind: Otlp.SpanKind.ValueType, seconds: float = 0.01, **attributes: Any) -> Otlp:
    begun = int((NOW + number / 1000) * 1e9)
    made = Otlp(
        trace_id=attributes.pop("trace", 1).to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        name=name,
        kind=kind,
        start_time_unix_nano=begun,
        end_time_unix_nano=begun + int(seconds * 1e9),
    )
    for key, value in attributes.items():
        made.attributes.add(key=key.replace("__", ".")).value.string_value = value
    return made


def publication(number: int, type_: str, order: str = "ord_1", **attributes: Any) -> Otlp:
    told = {
        "messaging__operation__name": "publish",
        "messaging__destination__name": type_,
        "messaging__message__id": f"e{number}",
        "cloudevents__event_subject": order,
        **attributes,
    }
    return span(number, f"publish {type_}", Otlp.SPAN_KIND_PRODUCER, **told)


def handling(number: int, type_: str, **attributes: Any) -> Otlp:
    told = {"messaging__operation__name": "process", "messaging__destination__name": type_, **attributes}
    return span(number, f"process {type_}", Otlp.SPAN_KIND_CONSUMER, **told)


async def send(console: httpx.AsyncClient, body: bytes, **headers: str) -> int:
    return (await console.post("/v1/traces", content=body, headers=headers)).status_code


async def test_the_flow_goes_from_who_published_to_who_handled(console: httpx.AsyncClient) -> None:
    await send(console, request("orders", publication(1, "shop.order.placed.v1")))
    await send(console, request("products", handling(2, "shop.order.placed.v1")))
    (flow,) = (await console.get("/console/api/overview")).json()["flow"]
    assert (flow["from"], flow["to"], flow["type"]) == ("orders", "products", "shop.order.placed.v1")
    assert (flow["count"], flow["failed"], flow["rate"], flow["p50_ms"]) == (1, 0, 0.1, 10.0)


async def test_a_part_shows_its_process_and_its_work(console: httpx.AsyncClient) -> None:
    failed = span(2, "Orders/PlaceOrder", Otlp.SPAN_KIND_SERVER, seconds=0.03)
    failed.status.code = Status.STATUS_CODE_ERROR
    await send(console, request("orders", span(1, "Orders/PlaceOrder", Otlp.SPAN_KIND_SERVER), failed))
    overview = (await console.get("/console/api/overview")).json()
    (part,) = overview["parts"]
    assert (part["name"], part["pid"], part["ready"], part["restarts"]) == ("orders", 7, True, 2)
    assert (part["work"]["count"], part["work"]["failed"]) == (2, 1)
    assert overview["operations"][0]["name"] == "Orders/PlaceOrder"


async def test_an_order_is_told_by_its_events_in_the_order_of_time_and_once_each(
    console: httpx.AsyncClient,
) -> None:
    await send(console, request("payments", publication(3, "shop.payment.captured.v1", trace=2)))
    await send(
        console,
        request("orders", publication(1, "shop.order.placed.v1"), publication(4, "shop.order.confirmed.v1")),
    )
    again = publication(9, "shop.order.confirmed.v1", messaging__message__id="e4")
    await send(console, request("orders", again))
    (order,) = (await console.get("/console/api/orders")).json()["items"]
    assert [step["type"].split(".")[2] for step in order["steps"]] == ["placed", "captured", "confirmed"]
    assert (order["id"], order["status"], order["seconds"]) == ("ord_1", "CONFIRMED", 0.003)


async def test_a_trace_is_given_by_its_id_and_an_unknown_one_is_404(console: httpx.AsyncClient) -> None:
    await send(
        console,
        request("orders", span(2, "second", Otlp.SPAN_KIND_SERVER), span(1, "first", Otlp.SPAN_KIND_SERVER)),
    )
    spans = (await console.get(f"/console/api/traces/{1:032x}")).json()["items"]
    assert [one["name"] for one in spans] == ["first", "second"]
    assert (await console.get("/console/api/traces/unknown")).status_code == 404


async def test_only_the_latest_spans_are_kept(console: httpx.AsyncClient) -> None:
    each = memory.SPANS_EACH
    for trace in range(1, memory.SPANS // each + 2):
        spans = [span(n, "work", Otlp.SPAN_KIND_SERVER, trace=trace) for n in range(1, each + 10)]
        await send(console, request("orders", *spans))
    assert (await console.get(f"/console/api/traces/{1:032x}")).status_code == 404
    assert len((await console.get(f"/console/api/traces/{2:032x}")).json()["items"]) == each


async def test_packed_spans_are_taken_and_what_is_no_span_is_refused(console: httpx.AsyncClient) -> None:
    body = request("orders", span(1, "packed", Otlp.SPAN_KIND_SERVER))
    assert await send(console, gzip.compress(body), **{"content-encoding": "gzip"}) == 200
    assert await send(console, b"\xff\xff") == 400
    assert await send(console, b"no gzip", **{"content-encoding": "gzip"}) == 400
    bomb = gzip.compress(b"\0" * (64 * 1024 * 1024))
    assert await send(console, bomb, **{"content-encoding": "gzip"}) == 413


async def test_other_names_for_this_machine_and_foreign_pages_are_refused(console: httpx.AsyncClient) -> None:
    assert (await console.get("/console", headers={"host": "evil.example"})).status_code == 400
    assert (await console.post("/console/api/dead-letters/all/replay")).status_code == 403
    own = await console.post("/console/api/dead-letters/all/replay", headers={"x-console": "1"})
    assert own.status_code == 503, "let through, to a broker that is not there"


async def test_the_page_loads_nothing_from_elsewhere(console: httpx.AsyncClient) -> None:
    for file in (resources.files("knative.local.console") / "static").iterdir():
        path = "/console" if file.name == "console.html" else f"/console/{file.name}"
        answer = await console.get(path)
        assert answer.status_code == 200, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert re.findall(r"https?://[^\s\"']+", answer.text) in ([], ["http://www.w3.org/2000/svg"])
    assert (await console.get("/console/none")).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/console", "/console/api/dead-letters", "/console/api/unheard-of"])
async def test_no_path_can_be_written_to_by_a_foreign_page(console: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await console.request(method, path)).status_code == 403


@pytest.mark.parametrize("path", ["/console", "/console/api/overview", "/console/api/dead-letters"])
async def test_parameters_are_refused_since_no_path_takes_any(console: httpx.AsyncClient, path: str) -> None:
    answer = await console.get(f"{path}?type=a")
    assert answer.status_code == 400
    assert "type" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["", "/console.js", "/console.css"])
async def test_pages_say_what_a_browser_may_do_with_them(console: httpx.AsyncClient, name: str) -> None:
    headers = (await console.get(f"/console{name}")).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert headers["x-content-type-options"] == "nosniff"
