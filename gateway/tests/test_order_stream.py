"""Following an order by server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from functions.runtime.errors import not_found, unauthenticated
from gateway.server import GatewayServer
from gateway.tests.conftest import BOSS, CUSTOMER, StartServer, assert_problem
from gateway.tests.fakes import ORDER, PRODUCT, Backend, order
from proto.shop.orders.v1 import orders_pb2

PATH = f"/v1/orders/{ORDER}/stream"


@asynccontextmanager
async def following(live: GatewayServer, **headers: str) -> AsyncIterator[tuple[httpx.Response, Any]]:
    """The answer, and its lines as they come."""
    async with (
        httpx.AsyncClient(base_url=live.http_url, timeout=5) as api,
        api.stream("GET", PATH, headers={**CUSTOMER, **headers}) as answer,
    ):
        yield answer, answer.aiter_lines()


async def next_event(lines: Any) -> dict[str, str]:
    """The fields of the next event; comments and `retry` are passed over."""
    fields: dict[str, str] = {}
    async for line in lines:
        if not line and "data" in fields:
            return fields
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
    return {}


async def test_an_order_is_followed_to_its_end(start_server: StartServer, backend: Backend) -> None:
    live = await start_server()
    async with following(live) as (answer, lines):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        first = await next_event(lines)
        assert (first["event"], first["id"], json.loads(first["data"])["status"]) == ("order", "1", "PLACED")
        backend.updates.put_nowait(order(orders_pb2.ORDER_STATUS_RESERVED, 2))
        assert json.loads((await next_event(lines))["data"])["status"] == "RESERVED"
        backend.updates.put_nowait(order(orders_pb2.ORDER_STATUS_CANCELLED, 3))
        last = await next_event(lines)
        assert (last["id"], json.loads(last["data"])["status"]) == ("3", "CANCELLED")
        assert await next_event(lines) == {}
    await asyncio.wait_for(backend.watch_ended.wait(), 5)
    assert backend.metadata[-1]["authorization"] == CUSTOMER["authorization"]
    assert live.gateway.streams.active == 0


async def test_a_client_that_goes_away_ends_the_watch(start_server: StartServer, backend: Backend) -> None:
    live = await start_server()
    async with following(live) as (_, lines):
        await next_event(lines)
        assert not backend.watch_ended.is_set()
    await asyncio.wait_for(backend.watch_ended.wait(), 5)


async def test_a_quiet_stream_is_kept_alive_by_comments(start_server: StartServer) -> None:
    live = await start_server(heartbeat_seconds=0.05)
    async with following(live) as (_, lines):
        await next_event(lines)
        assert await anext(lines) == ": still here"


async def test_a_client_that_comes_back_is_not_told_again_what_it_knows(
    start_server: StartServer, backend: Backend
) -> None:
    live = await start_server()
    async with following(live, **{"last-event-id": "1"}) as (_, lines):
        backend.updates.put_nowait(order(orders_pb2.ORDER_STATUS_RESERVED, 2))
        assert (await next_event(lines))["id"] == "2"
    backend.answers["WatchOrder"] = order(orders_pb2.ORDER_STATUS_DELIVERED, 9)
    async with following(live, **{"last-event-id": "9"}) as (answer, _):
        assert answer.status_code == 204


async def test_a_stop_ends_the_streams(start_server: StartServer) -> None:
    live = await start_server(drain_seconds=30.0)
    async with following(live) as (_, lines):
        await next_event(lines)
        stopping = asyncio.create_task(live.stop())
        assert await next_event(lines) == {}
    await asyncio.wait_for(stopping, 5)


async def test_an_order_that_is_not_there_is_a_problem_and_no_stream(api: httpx.AsyncClient, backend: Backend) -> None:
    backend.fails["WatchOrder"] = not_found("Order", "ORDER_NOT_FOUND")
    assert_problem(await api.get(PATH, headers=CUSTOMER), 404, "ORDER_NOT_FOUND")


async def test_streams_are_bounded_in_number_and_take_nothing_from_requests(
    start_server: StartServer, backend: Backend
) -> None:
    live = await start_server(max_streams=1)
    async with following(live) as (_, lines):
        await next_event(lines)
        async with httpx.AsyncClient(base_url=live.http_url) as api:
            assert_problem(await api.get(PATH, headers=CUSTOMER), 503, "TOO_MANY_STREAMS")
            assert (await api.get(f"/v1/products/{PRODUCT}")).status_code == 200


async def test_one_person_cannot_hold_all_streams(start_server: StartServer, backend: Backend) -> None:
    live = await start_server(max_streams_each=1)
    async with following(live) as (_, lines):
        await next_event(lines)
        async with httpx.AsyncClient(base_url=live.http_url) as api:
            assert_problem(await api.get(PATH, headers=CUSTOMER), 503, "TOO_MANY_STREAMS")
            async with api.stream("GET", PATH, headers=BOSS) as other:
                assert other.status_code == 200
    async with asyncio.timeout(5):
        while live.gateway.streams.active:  # noqa: ASYNC110 - polls what has no event to wait for
            await asyncio.sleep(0.01)
    async with following(live) as (_, lines):
        await next_event(lines)


async def test_a_watch_that_never_begins_is_504(start_server: StartServer, backend: Backend) -> None:
    live = await start_server(deadline_seconds=0.2)
    backend.slow["WatchOrder"] = 30.0
    async with httpx.AsyncClient(base_url=live.http_url) as api:
        assert_problem(await api.get(PATH, headers=CUSTOMER), 504, "DEADLINE_EXCEEDED")
    await asyncio.wait_for(backend.watch_ended.wait(), 5)
    assert live.gateway.streams.active == 0


TICKET = f"tkt_{'A' * 64}"


async def test_a_ticket_opens_a_stream_as_the_person_who_asked_for_it(
    start_server: StartServer, backend: Backend
) -> None:
    live = await start_server()
    backend.updates.put_nowait(order(orders_pb2.ORDER_STATUS_CANCELLED, 2))
    async with httpx.AsyncClient(base_url=live.http_url) as api:
        issued = await api.post(f"{PATH}-tickets", headers=CUSTOMER)
        assert issued.status_code == 201
        assert issued.headers["cache-control"] == "no-store"
        assert issued.json()["url"] == f"{PATH}?ticket={TICKET}"
        followed = await api.get(issued.json()["url"])
    assert "CANCELLED" in followed.text
    assert backend.last("RedeemStreamTicket").ticket == TICKET
    assert backend.last("RedeemStreamTicket").order_id == ORDER
    assert backend.metadata[-1]["authorization"] == CUSTOMER["authorization"]


async def test_a_client_with_a_new_ticket_says_what_it_has_in_the_query(
    api: httpx.AsyncClient, backend: Backend
) -> None:
    backend.answers["WatchOrder"] = order(orders_pb2.ORDER_STATUS_DELIVERED, 9)
    assert (await api.get(f"{PATH}?ticket={TICKET}&last_event_id=9")).status_code == 204
    assert (await api.get(f"{PATH}?last_event_id=9", headers=CUSTOMER)).status_code == 204


async def test_a_ticket_that_is_not_accepted_opens_nothing(api: httpx.AsyncClient, backend: Backend) -> None:
    assert_problem(await api.get(PATH), 401, "TOKEN_MISSING")
    assert_problem(await api.get(f"{PATH}?ticket="), 400, "INVALID_ARGUMENT")
    both = await api.get(f"{PATH}?ticket={TICKET}", headers=CUSTOMER)
    assert assert_problem(both, 400, "INVALID_ARGUMENT")["errors"][0]["field"] == "ticket"
    backend.fails["RedeemStreamTicket"] = unauthenticated("STREAM_TICKET_INVALID", "Ask for another.")
    assert_problem(await api.get(f"{PATH}?ticket={TICKET}"), 401, "STREAM_TICKET_INVALID")
    assert "WatchOrder" not in [name for name, _, _ in backend.calls]


async def test_a_ticket_is_in_no_line_of_the_log(
    api: httpx.AsyncClient, backend: Backend, lines: list[dict[str, Any]]
) -> None:
    backend.answers["WatchOrder"] = order(orders_pb2.ORDER_STATUS_DELIVERED, 9)
    await api.get(f"{PATH}?ticket={TICKET}")
    backend.fails["WatchOrder"] = RuntimeError("a bug")
    await api.get(f"{PATH}?ticket={TICKET}")
    assert len(lines) >= 2
    assert TICKET not in json.dumps(lines)
