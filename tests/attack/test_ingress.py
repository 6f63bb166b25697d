"""Half-open calls and slow bodies from a pod, through the ingress: everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import pytest

from knative.local.demo.shop import Person, Shop
from proto.shop.users.v1 import users_pb2, users_pb2_grpc
from tests.attack.cluster import INGRESS, Attacker, Cluster
from tests.conftest import MakeProduct
from tests.e2e.platform import GrpcIngress, Platform, grpc_ingress

SECONDS = 30
LOGIN = "/shop.users.v1.UsersService/Login"
WATCH = "/shop.orders.v1.OrdersService/WatchOrder"


@pytest.fixture
def ingress(cluster: Cluster) -> GrpcIngress:
    found = grpc_ingress()
    if found is None:
        pytest.skip("needs the ingress' host for gRPC clients: set E2E_GRPC_HOST")
    return found


async def during(attack: Callable[[], dict[str, Any]], use: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """Use the shop again and again while the attack lasts; return what the attacker saw."""
    running = asyncio.create_task(asyncio.to_thread(attack))
    served = 0
    while not running.done():
        await use()
        served += 1
        await asyncio.sleep(0.5)
    assert served >= 10
    return await running


@pytest.mark.parametrize(("connections", "each"), [(1, 2000), (25, 80)])
async def test_calls_without_a_message_keep_nobody_from_calling(
    outsider: Attacker, ingress: GrpcIngress, shop: Shop, customer: Person, connections: int, each: int
) -> None:
    """Two thousand at once: on one connection, and on as many as the ingress' bound for each asks for."""
    async with ingress.channel() as channel:
        stub: Any = users_pb2_grpc.UsersServiceStub(channel)

        async def use() -> None:
            login = users_pb2.LoginRequest(email=customer.email, password=customer.password)
            assert (await stub.Login(login, timeout=15)).session.access_token
            assert (await shop.raw("GET", "/v1/users/me", who=customer))[0] == 200

        flood = {"call": (ingress.host, LOGIN), "connections": connections, "each": each}
        saw = await during(
            partial(outsider.run, "half_open_calls", host=INGRESS, port=80, seconds=SECONDS, **flood), use
        )
    assert saw["calls"] >= 2000, saw
    assert saw["longest"] <= 31, saw


async def test_slow_bodies_keep_nobody_from_logging_in(
    outsider: Attacker, platform: Platform, shop: Shop, customer: Person
) -> None:
    async def use() -> None:
        again = await shop.login(customer.email, customer.password)
        assert (await shop.raw("GET", "/v1/users/me", who=again))[0] == 200

    slow = {"authority": platform.host, "connections": 1050, "seconds": SECONDS}
    saw = await during(partial(outsider.run, "slow_bodies", host=INGRESS, port=80, **slow), use)
    assert saw["connections"] >= 1050, saw


async def test_watched_orders_leave_room_for_other_calls_of_the_gateway(
    platform: Platform, shop: Shop, make_product: MakeProduct
) -> None:
    """More streams than a connection of the ingress may carry: inside, all calls of the gateway share one."""
    product = await make_product()
    people = [await shop.register() for _ in range(6)]
    orders = [await shop.order(person, {product["id"]: 1}) for person in people]
    for person, order in zip(people, orders, strict=True):
        await shop.settled(person, order["id"], status="CONFIRMED", seconds=60)
    async with contextlib.AsyncExitStack() as streams:
        connector = aiohttp.TCPConnector(limit=0)
        watchers = await streams.enter_async_context(aiohttp.ClientSession(connector=connector))
        for person, order in zip(people, orders, strict=True):
            url = f"{platform.base_url}/v1/orders/{order['id']}/stream"
            token = {"host": platform.host, "authorization": f"Bearer {person.tokens['access_token']}"}
            for _ in range(19):
                stream = await streams.enter_async_context(watchers.get(url, headers=token))
                assert stream.status == 200
        for person, order in zip(people, orders, strict=True):
            found = await asyncio.wait_for(shop.call("GET", f"/v1/orders/{order['id']}", who=person), 10)
            assert found["status"] == "CONFIRMED"


def test_a_connection_carries_a_hundred_calls_at_once(outsider: Attacker) -> None:
    assert outsider.run("settings", host=INGRESS, port=80)["max_concurrent_streams"] == 100


def test_the_ingress_ends_unary_calls_after_half_a_minute(cluster: Cluster, ingress: GrpcIngress) -> None:
    """Read from the ingress itself: the services end such calls before, so that none shows the ingress' own bound."""
    pods = cluster.get("pods", "-n", "istio-system", "-l", "istio=ingressgateway")["items"]
    asked = ("pilot-agent", "request", "GET", "config_dump?resource=dynamic_route_configs")
    printed = cluster.kubectl("exec", "-n", "istio-system", pods[0]["metadata"]["name"], "--", *asked)
    hosts = [
        host
        for config in json.loads(printed)["configs"]
        for host in config["route_config"].get("virtual_hosts", [])
        if ingress.host in host["domains"]
    ]
    timeouts = {
        next(iter(route["match"].values())): route["route"]["timeout"] for host in hosts for route in host["routes"]
    }
    assert timeouts.pop(WATCH) == "600s"
    assert len(timeouts) >= 5
    assert set(timeouts.values()) == {"30s"}
