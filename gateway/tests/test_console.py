"""The way to the local platform's console."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from events.http_server import Server, bind
from gateway.tests.conftest import Start


@pytest.fixture
async def console() -> AsyncIterator[str]:
    """Answers with what it was asked."""

    async def tell(scope: dict[str, object], receive: object, send: object) -> None:
        request = Request(scope)
        told = {"path": request.scope["raw_path"].decode(), "headers": dict(request.headers)}
        await JSONResponse(told, 418)(scope, receive, send)  # type: ignore[arg-type] # ASGI, loosely

    listening = bind("127.0.0.1", 0)
    server = Server(tell)
    await server.begin(listening)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    await server.end()


async def test_the_console_answers_below_its_path(start: Start, console: str) -> None:
    client = await start(console_url=console)
    answer = await client.get("/console/api/traces/a%2Fb", headers={"x-console": "1", "authorization": "Bearer secret"})
    assert (answer.status_code, answer.json()["path"]) == (418, "/console/api/traces/a%2Fb")
    assert answer.json()["headers"]["x-console"] == "1"
    assert "authorization" not in answer.json()["headers"]


@pytest.mark.parametrize("path", ["/consolery", "/v1/products"])
async def test_other_paths_do_not_get_there(start: Start, console: str, path: str) -> None:
    client = await start(console_url=console)
    assert (await client.get(path)).status_code != 418


async def test_there_is_no_console_unless_it_is_asked_for_nor_in_production(start: Start, console: str) -> None:
    plain: httpx.AsyncClient = await start()
    assert (await plain.get("/console")).status_code == 404
    production = await start(console_url=console, shop_env="production")
    assert (await production.get("/console")).status_code == 404


async def test_a_console_that_is_gone_is_said_to_be(start: Start) -> None:
    client = await start(console_url="http://127.0.0.1:9")
    assert (await client.get("/console")).status_code == 503
