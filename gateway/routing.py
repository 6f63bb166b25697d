"""The route class of the API: who may call, the body's limits, the deadline; declared where the route is, enforced and
documented from the same declaration."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Literal, get_args

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from functions.runtime import grpc_client, identity
from functions.runtime.errors import invalid, unauthenticated
from gateway.limits import address_key
from gateway.middleware.request_context import RequestContext, request_context_of
from gateway.request_body import read_json

Access = Literal["open", "anyone", "signed-in", "admin"]
"""open: a token is not even looked at. anyone: none is needed, but one that is sent must be good."""

ACCESS, SECONDS, COST = "x-access", "x-seconds", "x-cost"
BODY = "requestBody"
_OPEN, _ANYONE, _SIGNED_IN, _ADMIN = "open", "anyone", "signed-in", "admin"
_DEADLINE_MARGIN = 0.1
"""By so much the calls end before the request: their error says more (503, what cannot be reached) than a 504."""
_LONGEST_NAME = 100
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class RouteWithoutAccess(RuntimeError):
    """A route does not say who may call it; the gateway does not start with one."""


class ApiRoute(APIRoute):
    """A route whose `openapi_extra` says who may call (see `gateway.route_options.declare`).

    Raises UndeclaredRoute when it does not say so.
    """

    def get_route_handler(self) -> Handler:
        """The endpoint, behind identity, limits and deadline."""
        inner = direct(self) if is_plain(self) else super().get_route_handler()
        extra: Mapping[str, Any] = self.openapi_extra or {}
        access: Any = extra.get(ACCESS)
        if access not in get_args(Access):
            raise RouteWithoutAccess(f"{self.path}: say who may call, by **declare(...)")
        own_seconds: float | None = extra.get(SECONDS)
        cost: int = extra.get(COST, 1)
        has_body = self.body_field is not None or BODY in extra
        parameters = frozenset(field.alias for field in self.dependant.query_params)

        async def handler(request: Request) -> Response:
            request_context = request_context_of(request)
            request_context.access = access
            with request_context.gateway.callers.hold(address_key(request_context.address)):
                return await answered(request, request_context)

        async def answered(request: Request, request_context: RequestContext) -> Response:
            settings, slots = request_context.gateway.settings, request_context.gateway.slots
            seconds = own_seconds or settings.deadline_seconds
            grpc_client.enter_deadline(seconds)
            async with asyncio.timeout(seconds + _DEADLINE_MARGIN):
                if access != _OPEN:
                    await identify(request_context, access)
                if cost > 1:
                    request_context.charge(cost)
                if request.scope["query_string"]:
                    check_query(request, parameters)
                if not has_body:
                    with slots.hold():
                        return await inner(request)
            request = await read_json(request, settings.max_body_bytes, settings.body_seconds)
            grpc_client.enter_deadline(seconds)  # the time that the body took is the client's, not ours
            with slots.hold():  # not before: clients that send slowly would leave none for others
                async with asyncio.timeout(seconds + _DEADLINE_MARGIN):
                    return await inner(request)

        return handler


class PublicRoute(Route):
    """A route that anybody may call, and that the API's document leaves out: pages and probes."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, noting that access is open; probes have no exchange."""
        if "request_context" in scope:
            scope["request_context"].access = _OPEN
            check_query(Request(scope), frozenset())
        await super().handle(scope, receive, send)


def require_access(routes: Iterable[BaseRoute]) -> None:
    """Raise UndeclaredRoute unless every route says who may call it. A mounted application cannot say so."""
    for route in routes:
        if not isinstance(route, ApiRoute | PublicRoute):
            raise RouteWithoutAccess(
                f"{getattr(route, 'path', route)}: only EdgeRoute and OpenRoute are served"
            )


def check_query(request: Request, known: frozenset[str]) -> None:
    """Raise INVALID_ARGUMENT for parameters that are not `known`, or that come more than once.

    A misspelt filter would otherwise be none, and the request would mean more than was meant.
    """
    counts = Counter(name for name, _ in request.query_params.multi_items())
    violations = [
        (name[:_LONGEST_NAME], "is not a known parameter" if name not in known else "must be given once")
        for name, count in counts.items()
        if name not in known or count > 1
    ]
    if violations:
        raise invalid("The query is not valid.", *violations)


def is_plain(route: APIRoute) -> bool:
    """Whether the endpoint takes nothing but the request and parts of the path."""
    takes = route.dependant
    return not (
        takes.query_params
        or takes.header_params
        or takes.cookie_params
        or takes.body_params
        or takes.dependencies
    )


def direct(route: APIRoute) -> Handler:
    """A plain endpoint, called without FastAPI's dependency solving, which costs as much as the rest of the request.

    The parts of the path are validated by the same fields, with the same errors.
    """
    endpoint, fields = route.endpoint, route.dependant.path_params

    async def call(request: Request) -> Response:
        values = {}
        for field in fields:
            value, errors = field.validate(request.path_params[field.alias], loc=("path", field.alias))
            if errors:
                raise RequestValidationError(errors)
            values[field.name] = value
        answer: Response = await endpoint(request=request, **values)
        return answer

    return call


async def identify(request_context: RequestContext, access: str) -> None:
    """Who calls, by their access token; then their rate, and whether the route is for them. Raises ServiceError."""
    given = request_context.headers.get(b"authorization")
    if given is None:
        if access != _ANYONE:
            raise unauthenticated("TOKEN_MISSING", "A valid access token is needed.")
        return
    scheme, _, token = given.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthenticated(
            "TOKEN_INVALID", "The Authorization header must be `Bearer` and an access token."
        )
    await enter_token(request_context, token)
    if access == _ADMIN:
        identity.require_admin(identity.current_caller())


async def enter_token(request_context: RequestContext, token: str) -> None:
    """Make the person whom an access token names the caller, and count the request. Raises ServiceError."""
    who = await request_context.gateway.verifier.verify(token)
    if who.is_service:
        raise unauthenticated("TOKEN_INVALID", "The access token is not valid.")
    request_context.subject = who.subject
    request_context.count(request_context.gateway.users, who.subject)
    identity.enter(who)
