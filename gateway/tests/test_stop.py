"""The end of a gateway: what was asked is answered, and whoever is connected hears that it is the last time."""

from __future__ import annotations

import asyncio

import httpx

from gateway.tests.conftest import StartServer
from gateway.tests.fakes import PRODUCT, Backend


async def test_a_request_under_way_is_answered_and_told_to_connect_anew(
    start_server: StartServer, backend: Backend
) -> None:
    live = await start_server(notice_seconds=0.2)
    backend.slow["GetProduct"] = 0.1
    async with httpx.AsyncClient(base_url=live.http_url) as api:
        assert "connection" not in (await api.get("/v1/categories")).headers
        asked = asyncio.create_task(api.get(f"/v1/products/{PRODUCT}"))
        await backend.called.wait()
        stopping = asyncio.create_task(live.stop())
        await live.gateway.draining.wait()
        answer = await asked
        await stopping
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


async def test_ready_is_false_before_the_door_is_closed(start_server: StartServer) -> None:
    live = await start_server(notice_seconds=1.0)
    async with httpx.AsyncClient(base_url=live.http_url) as api:
        assert (await api.get("/healthz/ready")).status_code == 200
        stopping = asyncio.create_task(live.stop())
        await live.gateway.draining.wait()
        async with httpx.AsyncClient(base_url=live.http_url) as another:
            assert (await another.get("/healthz/ready")).status_code == 503
        await stopping
