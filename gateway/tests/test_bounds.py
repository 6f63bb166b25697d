"""What a request may hold, what its answer says of the limits, and how long somebody may take to read it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable

import httpx
import pytest

from gateway.tests.conftest import CUSTOMER, Start, StartServer
from gateway.tests.fakes import PRODUCT


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110 - only the server knows when
            await asyncio.sleep(0.01)


async def read_all(loop: asyncio.AbstractEventLoop, client: socket.socket) -> bytes:
    received = b""
    while chunk := await loop.sock_recv(client, 65536):
        received += chunk
    return received


async def test_every_answer_says_how_much_of_the_closest_limit_is_left(start: Start) -> None:
    api = await start(rate_limit_per_second=0.001, rate_limit_burst=100, exports_per_hour=2, trusted_proxy_hops=1)

    async def left(path: str, host: int, headers: dict[str, str]) -> str:
        answer = await api.get(path, headers={**headers, "x-forwarded-for": f"203.0.113.{host}"})
        assert len(answer.headers.get_list("ratelimit")) == 1
        return re.sub(r";t=\d+", "", answer.headers["ratelimit"])

    assert await left(f"/v1/products/{PRODUCT}", 1, {}) == '"default";r=99'
    assert await left("/v1/nothing", 1, {}) == '"default";r=98'
    assert await left("/v1/users/me", 2, {}) == '"default";r=99', "refused, and counted"
    assert await left("/v1/users/me", 3, CUSTOMER) == '"default";r=99'
    assert await left("/v1/users/me", 4, CUSTOMER) == '"default";r=98', "the person's, wherever they are"
    assert await left("/v1/users/me/export", 5, CUSTOMER) == '"exports";r=1'
    assert "ratelimit" not in (await api.get("/healthz/ready")).headers


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"/v1/products/{PRODUCT}?" + "&".join(["a=1"] * 51), [], 414),
        ("/v1/products?q=" + "x" * 40_000, [], 431),
        (f"/v1/products/{PRODUCT}", [("x-many", "1")] * 100, 431),
        (f"/v1/products/{PRODUCT}", [("x-same", "x" * 1000)] * 40, 431),
        (f"/v1/products/{PRODUCT}", [("x" * 1000 + str(number), "1") for number in range(40)], 431),
        (f"/v1/products/{PRODUCT}", [("x-many", "1")] * 50, 200),
    ],
    ids=["parameters", "query", "headers", "same header", "names", "enough"],
)
async def test_counts_and_sizes_of_headers_and_parameters_are_bounded(
    api: httpx.AsyncClient, path: str, headers: list[tuple[str, str]], status: int
) -> None:
    assert (await api.get(path, headers=headers)).status_code == status


async def test_who_does_not_read_the_answer_is_cut_off(start_server: StartServer) -> None:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        live = await start_server(body_seconds=0.3, http_fd=os.dup(listening.fileno()))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", live.http_port))
        await loop.sock_sendall(client, b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n")
        connections = live._server.server_state.connections
        await until(lambda: bool(connections))
        await until(lambda: not connections)
        assert not (await read_all(loop, client)).endswith(b"}")


async def test_a_slow_reader_gets_the_whole_answer(start_server: StartServer) -> None:
    live = await start_server(body_seconds=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", live.http_port, limit=4096)
    writer.write(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    received = b""
    while chunk := await reader.read(16 * 1024):
        received += chunk
        await asyncio.sleep(0.03)
    assert received.endswith(b"}")
    writer.close()
