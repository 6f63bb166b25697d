"""Events come in by three modes; what is bad is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from events.tests.support import headers, subscribed, until
from knative.local.broker.tests.support import Broker, broker, running, trigger

EVENT: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/orders", "type": "t"}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


async def test_a_binary_event_arrives_with_all_its_attributes_and_its_very_bytes(tmp_path: Path) -> None:
    body = b'{ "a":1,\n "b" : "\xc3\xa9" } '
    given = {**headers("42", subject="ord_1", correlationid="abc", time="2026-01-02T03:04:05Z")}
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    given |= {"ce-traceparent": trace, "ce-tracestate": "a=b", "ce-note": "caf%C3%A9%20%22au%22%20lait"}
    async with subscribed() as subscriber, running(tmp_path, broker(), trigger("t", subscriber.url)) as it:
        answer = await it.http.post("/shop/default", headers=given, content=body)
        await until(lambda: len(subscriber.received) == 1)
    assert answer.status_code == 202
    got = subscriber.received[0]
    assert got.body == body
    assert {name: got.headers[name] for name in given} == given
    assert got.headers["traceparent"] == trace
    assert got.headers["tracestate"] == "a=b"
    assert got.headers["prefer"] == "reply"
    assert got.headers["kn-namespace"] == "shop"
    assert got.headers["ce-knativearrivaltime"].endswith("Z")
    assert "ce-knativebrokerttl" not in got.headers


async def test_other_media_stay_byte_exact(tmp_path: Path) -> None:
    body = bytes(range(256))
    async with subscribed() as subscriber, running(tmp_path, broker(), trigger("t", subscriber.url)) as it:
        given = {**headers(), "content-type": "image/png"}
        await it.http.post("/shop/default", headers=given, content=body)
        await until(lambda: len(subscriber.received) == 1)
    assert subscriber.received[0].body == body
    assert subscriber.received[0].headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("document", "content_type", "body"),
    [
        ({"data": {"b": [1, 2.50]}}, "application/json", b'{"b": [1, 2.5]}'),
        ({"data": "x", "datacontenttype": "text/plain"}, "text/plain", b"x"),
        ({"data": "x"}, "application/json", b'"x"'),
        ({"data_base64": "AAH/", "datacontenttype": "image/png"}, "image/png", b"\x00\x01\xff"),
        ({}, None, b""),
    ],
)
async def test_a_structured_event_is_delivered_in_binary_mode(
    tmp_path: Path, document: dict[str, Any], content_type: str | None, body: bytes
) -> None:
    async with subscribed() as subscriber, running(tmp_path, broker(), trigger("t", subscriber.url)) as it:
        content = json.dumps({**EVENT, "count": 3, "flag": True, "gone": None, **document})
        answer = await it.http.post("/", headers=STRUCTURED, content=content)
        await until(lambda: len(subscriber.received) == 1)
    assert answer.status_code == 202
    got = subscriber.received[0]
    assert (got.headers.get("content-type"), got.body) == (content_type, body)
    assert (got.headers["ce-count"], got.headers["ce-flag"]) == ("3", "true")
    assert "ce-gone" not in got.headers


async def test_a_batch_is_taken_as_a_whole(tmp_path: Path) -> None:
    async with subscribed() as subscriber, running(tmp_path, broker(), trigger("t", subscriber.url)) as it:
        content = json.dumps([{**EVENT, "id": str(number)} for number in range(50)])
        answer = await it.http.post("/shop/default", headers=BATCH, content=content)
        await until(lambda: len(subscriber.received) == 50)
    assert answer.status_code == 202
    assert sorted(subscriber.ids, key=int) == [str(number) for number in range(50)]


async def test_one_bad_event_condemns_its_batch(tmp_path: Path) -> None:
    async with subscribed() as subscriber, running(tmp_path, broker(), trigger("t", subscriber.url)) as it:
        content = json.dumps([EVENT, {**EVENT, "id": ""}])
        answer = await it.http.post("/shop/default", headers=BATCH, content=content)
        assert (await it.post("after")).status_code == 202
        await until(lambda: len(subscriber.received) == 1)
    problem(answer, 400, "MISSING_ATTRIBUTE", "event 1 of the batch")
    assert subscriber.ids == ["after"]


BAD_HEADERS: list[tuple[dict[str, Any], str]] = [
    ({"ce-id": ""}, "MISSING_ATTRIBUTE"),
    ({"ce-source": ""}, "MISSING_ATTRIBUTE"),
    ({"ce-type": ""}, "MISSING_ATTRIBUTE"),
    ({"ce-specversion": ""}, "MISSING_ATTRIBUTE"),
    ({"ce-specversion": "0.3"}, "UNSUPPORTED_SPECVERSION"),
    ({"ce-my-extension": "x"}, "INVALID_ATTRIBUTE_NAME"),
    ({"ce-" + "a" * 65: "x"}, "INVALID_ATTRIBUTE_NAME"),
    ({"ce-data": "x"}, "INVALID_ATTRIBUTE_NAME"),
    ({"ce-note": "%ff"}, "INVALID_UTF8"),
    ({"ce-note": b"\xff"}, "INVALID_UTF8"),
    ({"ce-note": "a%0Ab"}, "INVALID_ATTRIBUTE_VALUE"),
    ({"ce-source": "a b"}, "INVALID_ATTRIBUTE_VALUE"),
    ({"ce-time": "yesterday"}, "INVALID_ATTRIBUTE_VALUE"),
    ({"ce-time": "2026-13-01T00:00:00Z"}, "INVALID_ATTRIBUTE_VALUE"),
]


@pytest.mark.parametrize(("change", "reason"), BAD_HEADERS)
async def test_a_bad_binary_event_is_refused_with_a_reason(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    async with running(tmp_path, broker()) as it:
        merged: dict[Any, Any] = {**headers(), **change}
        answer = await it.http.post("/shop/default", headers=merged, content=b"{}")
        assert it.metric("shop_broker_requests_rejected_total", reason=reason) == 1
    problem(answer, 400, reason)


BAD_BODIES: list[tuple[bytes, str]] = [
    (b"{", "MALFORMED_JSON"),
    (b"[]", "MALFORMED_JSON"),
    (b"", "MALFORMED_JSON"),
    (b'{"a":' * 200_000, "MALFORMED_JSON"),
    (b'{"id": "\xff"}', "INVALID_UTF8"),
    (json.dumps({**EVENT, "Upper": "x"}).encode(), "INVALID_ATTRIBUTE_NAME"),
    (json.dumps({**EVENT, "nested": {}}).encode(), "INVALID_ATTRIBUTE_VALUE"),
    (json.dumps({**EVENT, "big": 2**31}).encode(), "INVALID_ATTRIBUTE_VALUE"),
    (json.dumps({**EVENT, "datacontenttype": "a\r\nb: c"}).encode(), "INVALID_ATTRIBUTE_VALUE"),
    (json.dumps({**EVENT, "id": "\ud800"}).encode(), "MALFORMED_JSON"),
    (json.dumps({**EVENT, "data": 1, "data_base64": "AA=="}).encode(), "INVALID_DATA"),
    (json.dumps({**EVENT, "data_base64": "?"}).encode(), "INVALID_DATA"),
]


@pytest.mark.parametrize(("body", "reason"), BAD_BODIES)
async def test_a_bad_structured_event_is_refused_with_a_reason(tmp_path: Path, body: bytes, reason: str) -> None:
    async with running(tmp_path, broker()) as it:
        answer = await it.http.post("/shop/default", headers=STRUCTURED, content=body)
    problem(answer, 400, reason)


async def test_a_format_that_is_not_known_is_415(tmp_path: Path) -> None:
    async with running(tmp_path, broker()) as it:
        answer = await it.http.post("/", headers={"content-type": "application/cloudevents+xml"}, content=b"<a/>")
    problem(answer, 415, "UNSUPPORTED_FORMAT")


async def test_an_attribute_given_twice_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, broker()) as it:
        twice = [*headers().items(), ("ce-id", "2")]
        answer = await it.http.post("/shop/default", headers=twice, content=b"{}")
    problem(answer, 400, "DUPLICATE_ATTRIBUTE")


async def test_a_body_that_is_too_large_is_refused_with_a_reason(tmp_path: Path) -> None:
    async with running(tmp_path, broker()) as it:
        answer = await it.http.post("/", headers=headers(), content=b"x" * (1 << 20))
    problem(answer, 413, "TOO_LARGE")


async def test_addresses_and_methods_that_are_not_served_say_so(tmp_path: Path) -> None:
    async with running(tmp_path, broker(), broker("other")) as it:
        for path in ("/", "/shop", "/shop/unknown", "/shop/default/more"):
            problem(await it.post(path=path), 404, "NOT_FOUND")
        assert (await it.post(path="/shop/other")).status_code == 202
        answer = await it.http.get("/shop/default")
        problem(answer, 405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == "POST, OPTIONS"
        assert (await it.http.options("/shop/default")).headers["webhook-allowed-origin"] == "*"


async def test_health_and_metrics_are_served(tmp_path: Path) -> None:
    async with running(tmp_path, broker()) as it:
        await it.post()
        assert (await it.http.get("/healthz/live")).status_code == 200
        assert (await it.http.get("/healthz/ready")).status_code == 200
        assert 'shop_broker_events_received_total{broker="shop/default"} 1.0' in await metrics(it)
        it.app.refuse()
        assert (await it.http.get("/healthz/live")).status_code == 200
        problem(await it.http.get("/healthz/ready"), 503, "NOT_READY")
        problem(await it.post(), 503, "SHUTTING_DOWN")


async def metrics(it: Broker) -> str:
    return (await it.http.get("/metrics")).text


def problem(answer: httpx.Response, status: int, reason: str, detail: str = "") -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["status"], document["reason"]) == (status, reason)
    assert detail in document["detail"]


async def test_an_address_with_parameters_that_nobody_knows_takes_no_event(tmp_path: Path) -> None:
    async with running(tmp_path, broker()) as it:
        answer = await it.http.post("/shop/default?priority=high", headers=headers(), content=b"{}")
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_QUERY")
    assert [error["field"] for error in answer.json()["errors"]] == ["priority"]


async def test_lines_of_tracestate_are_combined_and_two_traceparents_are_none(tmp_path: Path) -> None:
    parent = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x"
    states = [("tracestate", "a=1"), ("tracestate", "b=2")]
    async with subscribed() as subscriber, running(tmp_path, broker(), trigger("t", subscriber.url)) as it:
        for number, parents in enumerate(([parent], [parent, parent])):
            lines = [*headers(str(number)).items(), *(("traceparent", each) for each in parents), *states]
            answer = await it.http.post("/shop/default", headers=lines, content=b"{}")
            assert answer.status_code == 202
        await until(lambda: len(subscriber.received) == 2)
    one, two = sorted(subscriber.received, key=lambda received: received.headers["ce-id"])
    assert one.headers["ce-traceparent"] == parent
    assert one.headers["ce-tracestate"] == "a=1,%20b=2"
    assert "ce-traceparent" not in two.headers
    assert "ce-tracestate" not in two.headers


async def test_two_content_types_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path, broker()) as it:
        for other in ("application/cloudevents+json", "application/json"):
            lines = [*headers().items(), ("content-type", "application/json"), ("content-type", other)]
            answer = await it.http.post("/shop/default", headers=lines, content=b"{}")
            assert (answer.status_code, answer.json()["reason"]) == (400, "DUPLICATE_ATTRIBUTE")
