"""Bounds: rates, concurrency, bodies, heads, and how a stop goes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from functions.runtime.errors import ServiceError
from functions.runtime.networks import network_key
from gateway.limits import TokenBuckets
from gateway.middleware.request_context import client_address
from gateway.tests.conftest import CUSTOMER, Start, StartServer, assert_problem
from gateway.tests.fakes import ORDER, PRODUCT, Backend
from gateway.tests.test_errors import new_order


def test_a_bucket_lets_a_burst_through_then_its_rate() -> None:
    now = [100.0]
    buckets = TokenBuckets(rate=2.0, burst=3, now=lambda: now[0])
    for _ in range(3):
        buckets.consume("a")
    with pytest.raises(ServiceError) as refused:
        buckets.consume("a")
    assert refused.value.retry_after == pytest.approx(0.5)
    buckets.consume("b")
    now[0] += 0.5
    buckets.consume("a")
    with pytest.raises(ServiceError):
        buckets.consume("a")


def test_buckets_are_bounded_in_number() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1, size=2, now=lambda: 0.0)
    for key in ("a", "b", "c"):
        buckets.consume(key)
    buckets.consume("a")  # forgotten, so full
    with pytest.raises(ServiceError):
        buckets.consume("c")


@pytest.mark.parametrize(
    ("forwarded", "hops", "seen"),
    [
        (b"203.0.113.9", 0, "10.0.0.1"),
        (b"203.0.113.9", 1, "203.0.113.9"),
        (b"1.1.1.1, 203.0.113.9", 1, "203.0.113.9"),
        (b"1.1.1.1, 203.0.113.9, 10.0.0.2", 2, "203.0.113.9"),
        (b"203.0.113.9:4711", 1, "203.0.113.9"),
        (b"[2001:db8::1]", 1, "2001:db8::1"),
        (b"nonsense", 1, "10.0.0.1"),
        (b"", 1, "10.0.0.1"),
        (b"203.0.113.9", 2, "10.0.0.1"),
    ],
)
def test_forwarded_addresses_are_believed_only_from_trusted_proxies(forwarded: bytes, hops: int, seen: str) -> None:
    assert client_address("10.0.0.1", forwarded, hops) == seen


def test_an_ipv6_customer_counts_as_their_network() -> None:
    assert network_key("2001:db8::1") == network_key("2001:db8::ffff:2") != network_key("2001:db8:0:1::1")
    assert network_key("192.0.2.1") == "192.0.2.1"
    assert network_key("not:an:address") == "not:an:address"


def test_an_ipv4_mapped_address_counts_as_its_ipv4_address() -> None:
    assert network_key("::ffff:192.0.2.1") == "192.0.2.1" != network_key("::ffff:192.0.2.2")


async def test_too_many_requests_are_429_with_the_rate(start: Start) -> None:
    api = await start(rate_limit_per_second=0.5, rate_limit_burst=2)
    for _ in range(2):
        assert (await api.get(f"/v1/products/{PRODUCT}")).status_code == 200
    answer = await api.get(f"/v1/products/{PRODUCT}")
    assert_problem(answer, 429, "RATE_LIMITED")
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["ratelimit-policy"] == '"default";q=2;w=4'
    assert answer.headers["ratelimit"] == '"default";r=0;t=4'
    assert (await api.get("/healthz/ready")).status_code == 200


async def test_a_users_rate_holds_whatever_address_they_come_from(start: Start) -> None:
    api = await start(rate_limit_per_second=0.5, rate_limit_burst=2, trusted_proxy_hops=1)

    def request(host: int) -> Any:
        return api.get("/v1/users/me", headers={**CUSTOMER, "x-forwarded-for": f"203.0.113.{host}"})

    assert [(await request(host)).status_code for host in range(3)] == [200, 200, 429]


async def test_the_address_that_the_ingress_states_beats_what_a_client_claims(start: Start) -> None:
    api = await start(rate_limit_per_second=0.5, rate_limit_burst=2, client_address_header="X-Client-Address")

    def request(stated: str, claimed: str) -> Any:
        headers = {"x-client-address": stated, "x-forwarded-for": claimed}
        return api.get(f"/v1/products/{PRODUCT}", headers=headers)

    same = [(await request("203.0.113.9", f"198.51.100.{host}")).status_code for host in range(3)]
    assert same == [200, 200, 429]
    assert (await request("203.0.113.10", "198.51.100.0")).status_code == 200


async def test_more_at_once_than_there_is_room_for_is_503(start: Start, backend: Backend) -> None:
    api = await start(max_concurrency=2)
    backend.slow["GetProduct"] = 0.3
    answers = await asyncio.gather(*(api.get(f"/v1/products/{PRODUCT}") for _ in range(5)))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) == 3
    assert_problem(refused[0], 503, "OVERLOADED")
    assert refused[0].headers["retry-after"] == "1"
    assert (await api.get(f"/v1/products/{PRODUCT}")).status_code == 200


async def test_a_body_of_two_mebibytes_is_413(api: httpx.AsyncClient, backend: Backend) -> None:
    body = json.dumps(new_order(payment_token="x" * 2 * 1024 * 1024)).encode()
    headers = {**CUSTOMER, "content-type": "application/json"}
    assert_problem(await api.post("/v1/orders", headers=headers, content=body), 413, "BODY_TOO_LARGE")
    assert backend.calls == []


async def test_a_body_without_a_declared_length_is_counted_while_it_comes(start_server: StartServer) -> None:
    live = await start_server()

    async def endless() -> Any:
        for _ in range(40):
            yield b" " * 65536

    async with httpx.AsyncClient(base_url=live.http_url) as api:
        headers = {**CUSTOMER, "content-type": "application/json"}
        answer = await api.post("/v1/orders", headers=headers, content=endless())
        assert_problem(answer, 413, "BODY_TOO_LARGE")
        answer = await api.post("/v1/orders", headers=headers, content=b" " * 2 * 1024 * 1024)
        assert_problem(answer, 413, "BODY_TOO_LARGE")
        assert (await api.get(f"/v1/products/{PRODUCT}")).status_code == 200


async def test_a_refused_body_that_does_not_end_is_cut_off(start_server: StartServer) -> None:
    live = await start_server(max_body_bytes=1000)
    _, writer = await asyncio.open_connection("127.0.0.1", live.http_port)
    writer.write(b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")

    async def send_on() -> None:
        for _ in range(10_000):
            writer.write(b"x" * 65536)
            await writer.drain()

    with pytest.raises(ConnectionError):
        await send_on()
    writer.close()


async def test_a_stranger_is_refused_before_their_body_is_read(start_server: StartServer) -> None:
    live = await start_server()
    reader, writer = await asyncio.open_connection("127.0.0.1", live.http_port)
    writer.write(b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
    assert b" 401 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


async def test_a_body_that_comes_too_slowly_is_cut_off(start_server: StartServer) -> None:
    live = await start_server(body_seconds=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", live.http_port)
    head = f"POST /v1/orders HTTP/1.1\r\nhost: x\r\nauthorization: {CUSTOMER['authorization']}\r\n"
    writer.write(head.encode() + b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{")
    answer = await asyncio.wait_for(reader.read(), 5)
    assert b" 408 " in answer.splitlines()[0]
    assert b"BODY_TOO_SLOW" in answer
    writer.close()


async def test_a_head_that_comes_too_slowly_is_cut_off(start_server: StartServer) -> None:
    live = await start_server(header_seconds=0.2)
    for beginning in (b"", b"GET /v1/products HTTP/1.1\r\nhost:"):
        reader, writer = await asyncio.open_connection("127.0.0.1", live.http_port)
        writer.write(beginning)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_slow_head_is_cut_off_on_a_used_connection_too(start_server: StartServer) -> None:
    live = await start_server(header_seconds=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", live.http_port)
    writer.write(b"GET /healthz/live HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"200" in await reader.readline()
    writer.write(b"GET /v1/pro")
    assert b"ok" in await asyncio.wait_for(reader.read(), 5)
    writer.close()


@pytest.mark.parametrize("size", [40_000, 3_000_000])
async def test_a_head_that_is_too_large_is_431(start_server: StartServer, size: int) -> None:
    live = await start_server()
    reader, writer = await asyncio.open_connection("127.0.0.1", live.http_port)
    writer.write(b"GET /v1/products HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * size)
    if size < 100_000:
        writer.write(b"\r\n\r\n")
    assert b" 431 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


async def test_an_unread_body_does_not_harm_the_next_request(start_server: StartServer) -> None:
    live = await start_server()
    async with httpx.AsyncClient(base_url=live.http_url) as api:
        boss = {"authorization": "Bearer admin:usr_1"}
        for _ in range(3):
            answer = await api.post(f"/v1/orders/{ORDER}/ship", headers=boss, content=b"x" * 500_000)
            assert answer.status_code == 200


async def test_other_sites_may_call_only_when_the_settings_say_so(start: Start, api: httpx.AsyncClient) -> None:
    origin = {"origin": "https://shop.example.com"}
    assert "access-control-allow-origin" not in (await api.get("/v1/products", headers=origin)).headers
    allowing = await start(cors_origins="https://shop.example.com, https://other.example.com")
    answer = await allowing.get("/v1/nothing", headers=origin)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example.com"
    assert "X-Correlation-Id" in answer.headers["access-control-expose-headers"]
    evil = await allowing.get("/v1/products", headers={"origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in evil.headers


async def test_a_stop_lets_the_running_request_finish(start_server: StartServer, backend: Backend) -> None:
    live = await start_server()
    backend.slow["GetProduct"] = 0.5
    async with httpx.AsyncClient(base_url=live.http_url) as api:
        running = asyncio.create_task(api.get(f"/v1/products/{PRODUCT}"))
        await asyncio.wait_for(backend.called.wait(), 5)
        await live.stop()
        assert (await running).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await api.get("/healthz/ready")


async def test_ready_turns_false_when_the_gateway_is_to_stop(start_server: StartServer) -> None:
    live = await start_server()
    async with httpx.AsyncClient(base_url=live.http_url) as api:
        assert (await api.get("/healthz/ready")).status_code == 200
        live.gateway.draining.set()
        assert (await api.get("/healthz/ready")).status_code == 503
        assert (await api.get("/healthz/live")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "cost"),
    [("GET", "/v1/products", 1), ("GET", "/v1/products?q=mug", 10), ("POST", "/v1/sessions", 20)],
)
async def test_what_costs_more_counts_for_more(start: Start, method: str, path: str, cost: int) -> None:
    api = await start(rate_limit_per_second=0.001, rate_limit_burst=100)
    body = {"email": "ada@example.com", "password": "x"} if method == "POST" else None
    answer = await api.request(method, path, json=body)
    assert answer.status_code == 200
    assert answer.headers["ratelimit"].startswith(f'"default";r={100 - cost};')


async def test_searches_are_refused_before_reads_are(start: Start) -> None:
    api = await start(rate_limit_per_second=0.001, rate_limit_burst=25)
    answers = [(await api.get("/v1/products?q=mug")).status_code for _ in range(3)]
    assert answers == [200, 200, 429]
    assert (await api.get("/v1/products")).status_code == 200


async def test_what_costs_more_than_all_tokens_takes_all_and_is_not_refused_for_ever(start: Start) -> None:
    api = await start(rate_limit_per_second=0.001, rate_limit_burst=5)
    login = {"email": "ada@example.com", "password": "x"}
    answer = await api.post("/v1/sessions", json=login)
    assert (answer.status_code, answer.headers["ratelimit"].partition(";t=")[0]) == (200, '"default";r=0')
    assert_problem(await api.post("/v1/sessions", json=login), 429, "RATE_LIMITED")
