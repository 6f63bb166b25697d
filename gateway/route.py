"""The route class of the API: who may call, the body's limits, the deadline; declared where the route is, enforced and
documented from the same declaration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from functions.runtime import identity, peers
from functions.runtime.errors import Code, ServiceError, unauthenticated
from gateway.bodies import read_json
from gateway.exchange import Exchange, exchange_of

Access = Literal["open", "anyone", "signed-in", "admin"]
"""open: a token is not even looked at. anyone: none is needed, but one that is sent must be good."""

ACCESS, SECONDS = "x-access", "x-seconds"
_OPEN, _ANYONE, _SIGNED_IN, _ADMIN = "open", "anyone", "signed-in", "admin"
_HAIR = 0.1
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class EdgeRoute(APIRoute):
    """A route whose `openapi_extra` says who may call (see `gateway.declare.declare`)."""

    def get_route_handler(self) -> Handler:
        """FastAPI's handler, behind identity, limits and deadline."""
        inner = super().get_route_handler()
        extra: Mapping[str, Any] = self.openapi_extra or {}
        access: str = extra.get(ACCESS, _OPEN)
        seconds: float | None = extra.get(SECONDS)
        has_body = self.body_field is not None

        async def handler(request: Request) -> Response:
            exchange = exchange_of(request)
            gateway = exchange.gateway
            async with deadline(seconds or gateway.settings.deadline_seconds):
                if access != _OPEN:
                    await identify(exchange, access)
                if not has_body:
                    return await inner(request)
            settings = gateway.settings
            request = await read_json(request, settings.max_body_bytes, settings.body_seconds)
            async with deadline(seconds or gateway.settings.deadline_seconds):
                return await inner(request)

        return handler


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """So long for what happens within, and for every call that it makes.

    The calls end first, by a hair: their error says more (503, what cannot be reached) than the timeout's 504.
    """
    peers.enter_deadline(seconds)
    try:
        async with asyncio.timeout(seconds + _HAIR):
            yield
    except TimeoutError:
        raise ServiceError(
            Code.DEADLINE_EXCEEDED,
            "DEADLINE_EXCEEDED",
            "The platform did not answer in time.",
            retry_after=1.0,
        ) from None


async def identify(exchange: Exchange, access: str) -> None:
    """Who calls, by their access token; then their rate, and whether the route is for them. Raises ServiceError."""
    given = exchange.headers.get(b"authorization")
    if given is None:
        if access != _ANYONE:
            raise unauthenticated("TOKEN_MISSING", "A valid access token is needed.")
        return
    scheme, _, token = given.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthenticated(
            "TOKEN_INVALID", "The Authorization header must be `Bearer` and an access token."
        )
    who = await exchange.gateway.verifier.verify(token)
    if who.is_service:
        raise unauthenticated("TOKEN_INVALID", "The access token is not valid.")
    exchange.subject = who.subject
    exchange.gateway.users.take(who.subject)
    identity.enter(who)
    if access == _ADMIN:
        identity.require_admin(who)
