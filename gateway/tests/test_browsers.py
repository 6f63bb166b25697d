"""What a page in a browser needs: preflights that pass, headers that it may read, streams that it can parse."""

from __future__ import annotations

import httpx
import pytest

from gateway.app import create_app
from gateway.routing import ApiRoute
from gateway.settings import Settings
from gateway.tests.conftest import CUSTOMER, Start, StartServer
from gateway.tests.fakes import ORDER, Backend, order
from proto.shop.orders.v1 import orders_pb2

ORIGIN = {"origin": "https://shop.example.com"}
ROUTES = [route for route in create_app(Settings()).routes if isinstance(route, ApiRoute)]
PAGE = ("authorization", "content-type", "traceparent", "tracestate", "baggage", "x-correlation-id")


@pytest.fixture
async def allowing(start: Start) -> httpx.AsyncClient:
    return await start(cors_origins=ORIGIN["origin"])


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
async def test_a_page_may_send_what_the_route_declares(allowing: httpx.AsyncClient, route: ApiRoute) -> None:
    declared = route.request_headers
    for method in route.methods or ():
        for header in [*declared, *PAGE, ", ".join([*declared, *PAGE])]:
            asked = {"access-control-request-method": method, "access-control-request-headers": header}
            answer = await allowing.options(route.path, headers={**ORIGIN, **asked})
            assert answer.status_code == 200, f"{header}: {answer.text}"
            assert answer.headers["access-control-allow-origin"] == ORIGIN["origin"]


@pytest.mark.parametrize("header", ["last-event-id", "idempotency-key", "if-match", "if-none-match"])
async def test_the_headers_that_make_requests_safe_are_among_them(allowing: httpx.AsyncClient, header: str) -> None:
    asked = {"access-control-request-method": "GET", "access-control-request-headers": header}
    answer = await allowing.options("/v1/orders", headers={**ORIGIN, **asked})
    assert answer.status_code == 200


async def test_a_header_that_nobody_declares_is_refused(allowing: httpx.AsyncClient) -> None:
    asked = {"access-control-request-method": "GET", "access-control-request-headers": "x-user-id"}
    assert (await allowing.options("/v1/orders", headers={**ORIGIN, **asked})).status_code == 400


async def test_a_page_may_read_what_the_routes_answer_with(allowing: httpx.AsyncClient) -> None:
    answer = await allowing.get(f"/v1/orders/{ORDER}", headers={**ORIGIN, **CUSTOMER})
    exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {name for route in ROUTES for name in route.response_headers} <= exposed
    assert {"ETag", "Location", "Retry-After", "X-Correlation-Id", "RateLimit"} <= exposed


async def test_no_block_of_a_stream_is_an_empty_event(start_server: StartServer, backend: Backend) -> None:
    """A blank line ends an event; those without data reach parsers that skip the standard's fine print."""
    live = await start_server(heartbeat_seconds=0.02)
    text = ""
    async with (
        httpx.AsyncClient(base_url=live.http_url, timeout=10) as api,
        api.stream("GET", f"/v1/orders/{ORDER}/stream", headers=CUSTOMER) as answer,
    ):
        async for chunk in answer.aiter_text():
            text += chunk
            if text.count(": still here\n") == 3:
                backend.updates.put_nowait(order(orders_pb2.ORDER_STATUS_CANCELLED, 2))
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert len(blocks) == 2
    assert all("\ndata: " in block for block in blocks)
    assert blocks[0].startswith("retry: 2000\nevent: order\nid: 1\n")
    assert blocks[1].startswith(": still here\n")


async def test_a_stream_that_has_nothing_new_to_tell_begins_with_no_event(
    start_server: StartServer, backend: Backend
) -> None:
    live = await start_server()
    backend.updates.put_nowait(order(orders_pb2.ORDER_STATUS_CANCELLED, 2))
    async with httpx.AsyncClient(base_url=live.http_url, timeout=10) as api:
        answer = await api.get(f"/v1/orders/{ORDER}/stream", headers={**CUSTOMER, "last-event-id": "1"})
    assert answer.text.startswith("retry: 2000\nevent: order\nid: 2\n")
    assert answer.text.count("\n\n") == 1


@pytest.mark.parametrize("path", ["/docs", "/docs/start.js", "/docs/swagger-ui.css"])
async def test_pages_say_what_a_browser_may_do_with_them(start: Start, path: str) -> None:
    headers = (await (await start()).get(path)).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert headers["x-content-type-options"] == "nosniff"


async def test_in_production_everything_is_asked_for_by_https_from_then_on(start: Start) -> None:
    api = await start(shop_env="production")
    for path in ("/docs", "/v1/nothing"):
        assert "max-age=31536000" in (await api.get(path)).headers["strict-transport-security"]
