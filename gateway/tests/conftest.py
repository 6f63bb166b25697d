"""Fixtures of a gateway in front of fake services: in process over ASGI, or on a port if the transport matters."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from events.service_keys import PrivateKey
from functions.runtime.rpc.server import RpcServer
from functions.runtime.tests.support import FakeVerifier
from gateway.app import create_app
from gateway.server import GatewayServer
from gateway.settings import Settings
from gateway.tests.dead_letters import fake_dead_letters
from gateway.tests.fakes import ADMIN, USER, Backend
from observability.logs import JsonFormatter

CUSTOMER = {"authorization": f"Bearer user:{USER}"}
BOSS = {"authorization": f"Bearer admin:{ADMIN}"}
PROBLEM = "application/problem+json"

Start = Callable[..., Awaitable[httpx.AsyncClient]]
StartServer = Callable[..., Awaitable[GatewayServer]]


@pytest.fixture
async def backend() -> Backend:
    """Return the fake services' responses and calls."""
    return Backend()


@pytest.fixture
async def address(backend: Backend) -> AsyncIterator[str]:
    """Serve all fake services on one port, and yield its address."""
    server = RpcServer("fakes", backend.services(), FakeVerifier(), False)
    port = await server.start("127.0.0.1:0")
    yield f"127.0.0.1:{port}"
    await server.stop(0)


@pytest.fixture
async def settings(address: str) -> AsyncIterator[Settings]:
    """Yield settings with the addresses of the fake services."""
    async with fake_dead_letters() as url:
        yield Settings(
            service_key=PrivateKey.generate("gateway").pem,
            http_port=0,
            notice_seconds=0,
            users_address=address,
            orders_address=address,
            products_address=address,
            payments_address=address,
            notifications_address=address,
            dead_letters_url=url,
        )


@asynccontextmanager
async def in_process(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway in this process."""
    app = create_app(settings, verifier=FakeVerifier())
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        yield client
    await app.state.gateway.clients.close()


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway with ordinary settings."""
    async with in_process(settings) as client:
        yield client


@pytest.fixture
async def start(settings: Settings) -> AsyncIterator[Start]:
    """Yield a function that returns a client of a gateway with other settings."""
    import msgspec

    async with AsyncExitStack() as stack:

        async def with_settings(**changes: Any) -> httpx.AsyncClient:
            return await stack.enter_async_context(in_process(msgspec.structs.replace(settings, **changes)))

        yield with_settings


@pytest.fixture
async def start_server(settings: Settings) -> AsyncIterator[StartServer]:
    """Yield a function that serves a gateway on a free port."""
    import msgspec

    running: list[GatewayServer] = []

    async def with_settings(**changes: Any) -> GatewayServer:
        changed = msgspec.structs.replace(settings, **{"drain_seconds": 2.0, **changes})
        live = GatewayServer(changed, create_app(changed, verifier=FakeVerifier()))
        await live.start()
        running.append(live)
        return live

    yield with_settings
    for live in running:
        await live.stop()


class LogLines(logging.Handler):
    """A handler that keeps log lines as the process writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter("gateway"))
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Format the line in the context of the request, and keep it."""
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def lines() -> Any:
    """Yield the gateway's log lines."""
    handler = LogLines()
    logger = logging.getLogger("shop.gateway")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def assert_problem(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    """Check that a response is the problem with this status and reason, and return the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["reason"] == reason
    assert document["type"] == "/problems/" + reason.lower().replace("_", "-")
    assert document["correlation_id"] == answer.headers["x-correlation-id"]
    return document
