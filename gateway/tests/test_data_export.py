"""One's own data in one document."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import httpx
import pytest

from functions.runtime.errors import invalid, unauthenticated, unavailable
from gateway.tests.conftest import CUSTOMER, Start, StartServer, assert_problem
from gateway.tests.fakes import ADDRESS, NOTIFICATION, ORDER, PAYMENT, USER, Backend, canned
from proto.shop.orders.v1 import orders_pb2

EXPORT = "/v1/users/me/export"


async def test_the_export_has_what_every_domain_keeps_of_the_caller(api: httpx.AsyncClient, backend: Backend) -> None:
    answer = await api.get(EXPORT, headers=CUSTOMER)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-disposition"].startswith("attachment")
    kept = answer.json()
    assert (kept["profile"]["id"], kept["profile"]["email"]) == (USER, "ada@example.com")
    lists = ("addresses", "orders", "payments", "notifications")
    assert [kept[name][0]["id"] for name in lists] == [ADDRESS, ORDER, PAYMENT, NOTIFICATION]
    assert kept["orders"][0]["shipping_address"]["line1"] == "Hauptstr. 1"
    assert kept["notifications"][0]["body"] == "Thank you."
    assert kept["preferences"]["email_enabled"] is True
    assert {(request.user_id, who.subject) for _, request, who in backend.calls} == {(USER, USER)}


async def test_the_export_has_every_page_of_a_list(api: httpx.AsyncClient, backend: Backend) -> None:
    def page(request: orders_pb2.ListOrdersRequest) -> Any:
        after = {"": "2", "2": "3", "3": ""}[request.cursor]
        return orders_pb2.ListOrdersResponse(orders=canned("ListOrders").orders, next_cursor=after)

    backend.answers["ListOrders"] = page
    assert len((await api.get(EXPORT, headers=CUSTOMER)).json()["orders"]) == 3
    assert {request.limit for name, request, _ in backend.calls if name == "ListOrders"} == {25}


async def test_an_export_that_users_refuses_asks_nobody_else_and_counts_for_nothing(
    start: Start, backend: Backend
) -> None:
    api = await start(exports_per_hour=1)
    backend.fails["ExportUser"] = unauthenticated("REAUTHENTICATION_REQUIRED", "Log in again.")
    refused = await api.get(EXPORT, headers=CUSTOMER)
    assert_problem(refused, 401, "REAUTHENTICATION_REQUIRED")
    assert 'error="insufficient_user_authentication", max_age="300"' in refused.headers["www-authenticate"]
    assert {name for name, _, _ in backend.calls} == {"ExportUser"}
    backend.fails.clear()
    assert (await api.get(EXPORT, headers=CUSTOMER)).status_code == 200


async def test_an_export_that_would_lack_something_is_none(api: httpx.AsyncClient, backend: Backend) -> None:
    backend.fails["ListPayments"] = unavailable("SERVICE_UNAVAILABLE", "Away.")
    assert_problem(await api.get(EXPORT, headers=CUSTOMER), 503, "SERVICE_UNAVAILABLE")


async def test_exports_are_few_an_hour_for_each_person(start: Start) -> None:
    api = await start(exports_per_hour=2)
    for _ in range(2):
        assert (await api.get(EXPORT, headers=CUSTOMER)).status_code == 200
    refused = await api.get(EXPORT, headers=CUSTOMER)
    assert_problem(refused, 429, "RATE_LIMITED")
    assert refused.headers["ratelimit-policy"] == '"exports";q=2;w=3600'
    assert refused.headers["ratelimit"].startswith('"exports";r=0;t=')
    assert 1700 < int(refused.headers["retry-after"]) <= 1800
    other = {"authorization": "Bearer user:usr_" + "f" * 32}
    assert (await api.get(EXPORT, headers=other)).status_code == 200
    assert (await api.get("/v1/users/me", headers=CUSTOMER)).status_code == 200


async def test_a_domain_that_is_away_for_a_moment_does_not_break_the_export_off(
    api: httpx.AsyncClient, backend: Backend
) -> None:
    failures = [unavailable("SERVICE_UNAVAILABLE", "Away.")]

    def page(request: orders_pb2.ListOrdersRequest) -> Any:
        if request.cursor and failures:
            raise failures.pop()
        after = "2" if not request.cursor else ""
        return orders_pb2.ListOrdersResponse(orders=canned("ListOrders").orders, next_cursor=after)

    backend.answers["ListOrders"] = page
    assert len((await api.get(EXPORT, headers=CUSTOMER)).json()["orders"]) == 2


async def test_an_export_that_cannot_be_completed_is_cut_off_and_never_looks_whole(
    start_server: StartServer, backend: Backend
) -> None:
    def page(request: orders_pb2.ListOrdersRequest) -> Any:
        if request.cursor:
            raise invalid("No.", reason="NO")
        return orders_pb2.ListOrdersResponse(orders=canned("ListOrders").orders, next_cursor="2")

    backend.answers["ListOrders"] = page
    live = await start_server()
    async with httpx.AsyncClient(base_url=live.http_url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(EXPORT, headers=CUSTOMER)


async def test_five_exports_at_once_of_many_large_orders_take_little_memory(
    start_server: StartServer, backend: Backend
) -> None:
    """They would take hundreds of megabytes if they were held whole."""
    order = canned("ListOrders").orders[0]
    lines = [orders_pb2.OrderLine(product_id="prd_" + "0" * 32, name="n" * 200, quantity=1)] * 50
    order = orders_pb2.Order(**{field.name: value for field, value in order.ListFields() if field.name != "lines"})
    order.lines.extend(lines)

    def page(request: orders_pb2.ListOrdersRequest) -> Any:
        number = int(request.cursor or 0) + request.limit
        after = str(number) if number < 300 else ""
        return orders_pb2.ListOrdersResponse(orders=[order] * request.limit, next_cursor=after)

    backend.answers["ListOrders"] = page
    live = await start_server()
    tracemalloc.start()

    async def export(client: httpx.AsyncClient) -> int:
        size = 0
        async with client.stream("GET", EXPORT, headers=CUSTOMER) as answer:
            async for chunk in answer.aiter_bytes():
                size += len(chunk)
        return size

    async with httpx.AsyncClient(base_url=live.http_url, timeout=120) as client:
        sizes = await asyncio.gather(*(export(client) for _ in range(5)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert min(sizes) > 5_000_000
    assert peak < 10_000_000
