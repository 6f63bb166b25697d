"""Who may call is declared where the route is; what is not declared is not served."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from functions.runtime.tests.support import FakeVerifier
from gateway import app as composition
from gateway.app import create_app
from gateway.routes import products
from gateway.routing import ApiRouter, RouteWithoutAccess
from gateway.settings import Settings
from gateway.tests.conftest import assert_problem

SECRET = "what nobody should read"


async def tell(request: Request) -> Response:
    return PlainTextResponse(SECRET)


async def hidden(scope: object, receive: object, send: object) -> None:
    await PlainTextResponse(SECRET)(scope, receive, send)  # type: ignore[arg-type] # plain ASGI


def test_a_route_that_does_not_say_who_may_call_cannot_be_made() -> None:
    router = ApiRouter("orders")
    with pytest.raises(RouteWithoutAccess, match="/v1/forgotten"):
        router.get("/v1/forgotten")(tell)  # type: ignore[call-arg] # the type checker sees it, too
    with pytest.raises(RouteWithoutAccess):
        router.get("/v1/misspelt", access="everybody")(tell)  # type: ignore[arg-type] # as above


@pytest.mark.parametrize("kind", ["another route class", "a plain route", "a mount"])
def test_a_gateway_with_another_kind_of_route_does_not_start(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    router = APIRouter()
    if kind == "another route class":
        router.get("/v1/forgotten")(tell)
    else:
        made = Route("/v1/forgotten", tell) if kind == "a plain route" else Mount("/v1/forgotten", app=hidden)
        router.routes.append(made)
    domain = type("domain", (), {"router": router})
    monkeypatch.setattr(composition, "_DOMAINS", (products, domain))
    with pytest.raises(RouteWithoutAccess, match="/v1/forgotten"):
        create_app(Settings(), verifier=FakeVerifier())


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings, verifier=FakeVerifier())
    yield app
    await app.state.gateway.clients.close()


async def test_what_is_added_later_tells_nobody_anything(app: FastAPI) -> None:
    app.get("/v1/later")(tell)
    app.router.add_route("/v1/plain", tell)
    app.mount("/v1/mounted", hidden)
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as api:
        for path in ("/v1/later", "/v1/plain", "/v1/mounted/x"):
            answer = await api.get(path)
            assert_problem(answer, 500, "INTERNAL")
            assert SECRET not in answer.text
