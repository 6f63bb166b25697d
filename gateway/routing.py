"""The router of the API: each route states who may call it, its responses and its errors.

`ApiRoute` enforces the statement: identity, rate, deadline, and the form of query and body. `gateway.openapi` documents
it. The gateway does not start with a route that does not state who may call it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from enum import Enum
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Required, TypedDict, TypeVar, Unpack

from fastapi import APIRouter
from fastapi.dependencies.utils import get_flat_params, get_typed_return_annotation
from fastapi.params import Header
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from functions.runtime import grpc_client
from functions.runtime.errors import invalid, unauthenticated
from functions.runtime.identity import current_caller, require_admin
from functions.runtime.networks import network_key
from gateway.api_errors import ApiError
from gateway.authentication import authenticate
from gateway.middleware.request_context import RequestContext
from gateway.preconditions import not_modified
from gateway.request_body import read_json
from gateway.responses import PRIVATE, REVALIDATE, JsonResponse, no_content

E = TypeVar("E", bound=Callable[..., Coroutine[Any, Any, Any]])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_DEADLINE_MARGIN = 0.1
"""Seconds by which calls to services end before the request itself, so that the client gets the error of the service
that does not answer (503) and not a generic 504."""
_LONGEST_NAME = 100


class Access(Enum):
    """The callers that a route allows."""

    PUBLIC = "anybody; a token is ignored"
    OPTIONAL = "anybody; a token that is sent must be valid"
    SIGNED_IN = "callers with a valid access token"
    ADMIN = "administrators"


class RouteOptions(TypedDict, total=False):
    """What a route declares in addition to its path and its types."""

    access: Required[Access]
    errors: Sequence[ApiError]
    """The errors of this route, beyond those that every route can answer."""
    status_code: int
    """The status of success; by default 200, or 204 for a route that returns None."""
    response_model: Any
    """The documented body of a route that returns a Response; by default the return type."""
    etag: bool
    """Whether the response has an ETag, which by default is its `version`. A GET then honours If-None-Match."""
    cacheable: bool
    """Whether any cache may store the response to an anonymous caller, if it validates the response before each use."""
    location: str
    """The template of the Location header, filled with the fields of the response."""
    response_headers: Sequence[str]
    """Further response headers."""
    cost: int
    """The number of ordinary requests that one request of this route counts as."""
    deadline_seconds: float
    """A deadline other than DEADLINE_SECONDS."""
    body_example: Mapping[str, Any]
    """An example of a JSON body that the endpoint reads itself, by `await request.body()`."""
    event_example: str
    """An example of server-sent events, for a route that streams."""
    deprecated: bool


class RouteWithoutAccess(RuntimeError):
    """The error of a route that does not state who may call it; the gateway does not start with such a route."""


class ApiRouter(APIRouter):
    """The routes of one domain."""

    def __init__(self, tag: str) -> None:
        super().__init__()
        self._tag = tag

    def _add(self, method: str, path: str, options: RouteOptions) -> Callable[[E], E]:
        def decorate(endpoint: E) -> E:
            self.routes.append(ApiRoute(method, path, endpoint, self._tag, options))
            return endpoint

        return decorate

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[E], E]:  # type: ignore[override] # access is required
        """Add a route."""
        return self._add("GET", path, options)

    def post(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[E], E]:  # type: ignore[override] # as above
        """Add a route."""
        return self._add("POST", path, options)

    def put(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[E], E]:  # type: ignore[override] # as above
        """Add a route."""
        return self._add("PUT", path, options)

    def patch(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[E], E]:  # type: ignore[override] # as above
        """Add a route."""
        return self._add("PATCH", path, options)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[E], E]:  # type: ignore[override] # as above
        """Add a route."""
        return self._add("DELETE", path, options)


class ApiRoute(APIRoute):
    """A route of the API. Raises RouteWithoutAccess if `options` do not state who may call it."""

    def __init__(
        self, method: str, path: str, endpoint: Callable[..., Coroutine[Any, Any, Any]], tag: str, options: RouteOptions
    ) -> None:
        if not isinstance(options.get("access"), Access):
            raise RouteWithoutAccess(f"{path}: state who may call, by access=")
        returns = get_typed_return_annotation(endpoint)
        status = options.get("status_code", 204 if returns is None else 200)
        self.method = method
        self.options = options
        self.access = options["access"]
        self.result = options.get("response_model", returns)
        """The type of the response's body; None without one."""
        self.returning = _response_maker(options, status)
        self.call = endpoint

        @wraps(endpoint)
        async def responding(**values: Any) -> Response:
            return self.returning(await endpoint(**values))

        super().__init__(
            path,
            responding,
            methods=[method],
            tags=[tag],
            status_code=status,
            response_model=None,
            response_class=Response,
            deprecated=options.get("deprecated"),
            generate_unique_id_function=lambda route: route.name,
        )

    @property
    def request_headers(self) -> list[str]:
        """Return the request headers that the route reads, besides those that every route reads."""
        fields = [field for field in get_flat_params(self.dependant) if isinstance(field.field_info, Header)]
        conditional = ["If-None-Match"] if self.method == "GET" and self.options.get("etag") else []
        return [*(field.alias for field in fields), *conditional]

    @property
    def response_headers(self) -> list[str]:
        """Return the response headers of the route, besides those that every route sends."""
        return [*(["ETag"] if self.options.get("etag") else []), *self.options.get("response_headers", ())]

    def get_route_handler(self) -> Handler:
        """Return a handler that checks identity and limits, and calls the endpoint within the deadline."""
        inner = self._fast_handler(super().get_route_handler())
        access, cost, own_seconds = (self.access, self.options.get("cost", 1), self.options.get("deadline_seconds"))
        has_body = self.body_field is not None or "body_example" in self.options
        parameters = frozenset(field.alias for field in self.dependant.query_params)
        is_conditional = self.options.get("etag", False) and self.method == "GET"

        async def handle(request: Request) -> Response:
            request_context: RequestContext = request.scope["request_context"]
            request_context.access = access
            with request_context.state.open_requests.hold(network_key(request_context.address)):
                response = await answer(request, request_context)
            if is_conditional and (given := request.headers.get("if-none-match")) is not None:
                return not_modified(response, given)
            return response

        async def answer(request: Request, request_context: RequestContext) -> Response:
            state = request_context.state
            seconds = own_seconds or state.settings.deadline_seconds
            grpc_client.enter_deadline(seconds)
            async with asyncio.timeout(seconds + _DEADLINE_MARGIN):
                if access is not Access.PUBLIC:
                    await _authorize(request_context, access)
                if cost > 1:
                    request_context.charge(cost)
                if request.scope["query_string"]:
                    check_query(request, parameters)
                if not has_body:
                    with state.active_requests.hold():
                        return await inner(request)
            request = await read_json(request, state.settings.max_body_bytes, state.settings.body_seconds)
            grpc_client.enter_deadline(seconds)  # the time to receive the body does not count
            with state.active_requests.hold():  # not earlier: slow senders would use up the limit
                async with asyncio.timeout(seconds + _DEADLINE_MARGIN):
                    return await inner(request)

        return handle

    def _fast_handler(self, slow: Handler) -> Handler:
        """Return a handler that bypasses FastAPI's `solve_dependencies`, or `slow` if the endpoint needs it.

        That function and its exit stacks cost as much as the rest of the request (docs/decisions/0053-fast-routes.md).
        FastAPI's own fields validate path, headers and body. The handler passes a request with an invalid value to
        `slow`, so that the errors are FastAPI's. Endpoints with query or cookie parameters, or with dependencies that
        have parameters, use `slow` for every request.
        """
        dependant, call, returning, body = self.dependant, self.call, self.returning, self.body_field
        if dependant.query_params or dependant.cookie_params or dependant.body_params != [body] * (body is not None):
            return slow
        for each in dependant.dependencies:
            takes_more = (each.path_params, each.query_params, each.header_params, each.cookie_params)
            if any(takes_more) or each.body_params or each.dependencies or not iscoroutinefunction(each.call):
                return slow
        request_name, in_path, in_headers = (
            dependant.request_param_name,
            dependant.path_params,
            dependant.header_params,
        )
        dependencies: list[tuple[str, Any, str | None]] = [
            (each.name or "", each.call, each.request_param_name) for each in dependant.dependencies
        ]

        async def handle(request: Request) -> Response:
            values: dict[str, Any] = {request_name: request} if request_name else {}
            given = [(field, request.path_params[field.alias]) for field in in_path]
            given += [(field, request.headers.get(field.alias)) for field in in_headers]
            if body is not None:
                given.append((body, await request.json()))
            for field, value in given:
                if value is None and not field.field_info.is_required():
                    values[field.name] = field.get_default()
                    continue
                values[field.name], errors = field.validate(value, loc=())
                if errors:
                    return await slow(request)
            for name, dependency, parameter in dependencies:
                values[name] = await (dependency(**{parameter: request}) if parameter else dependency())
            return returning(await call(**values))

        return handle


class PublicRoute(Route):
    """A route that anybody may call and that is not in the OpenAPI document: a page or a probe."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. Probes have no request context."""
        if "request_context" in scope:
            scope["request_context"].access = Access.PUBLIC
            check_query(Request(scope), frozenset())
        await super().handle(scope, receive, send)


def require_access(routes: Iterable[BaseRoute]) -> None:
    """Raise RouteWithoutAccess for any route but ApiRoute and PublicRoute, the only ones that state who may call them.

    So a mounted application is refused.
    """
    for route in routes:
        if not isinstance(route, ApiRoute | PublicRoute):
            raise RouteWithoutAccess(f"{getattr(route, 'path', route)}: only ApiRoute and PublicRoute are served")


def check_query(request: Request, known: frozenset[str]) -> None:
    """Raise INVALID_ARGUMENT for parameters that are not `known` or are repeated.

    Otherwise a misspelt filter would be ignored, and the response would contain more than the client asked for.
    """
    counts = Counter(name for name, _ in request.query_params.multi_items())
    violations = [
        (name[:_LONGEST_NAME], "is not a known parameter" if name not in known else "must be given once")
        for name, count in counts.items()
        if name not in known or count > 1
    ]
    if violations:
        raise invalid("The query is not valid.", *violations)


async def _authorize(request_context: RequestContext, access: Access) -> None:
    caller = await authenticate(request_context)
    if caller is None:
        if access is not Access.OPTIONAL:
            raise unauthenticated("TOKEN_MISSING", "A valid access token is needed.")
    elif access is Access.ADMIN:
        require_admin(caller)


def _response_maker(options: RouteOptions, status: int) -> Callable[[Any], Response]:
    """Return the function that turns an endpoint's result into a response."""
    has_etag, cacheable = options.get("etag", False), options.get("cacheable", False)
    location = options.get("location")

    def respond(content: Any) -> Response:
        if isinstance(content, Response):
            return content
        if content is None:
            return no_content()
        return JsonResponse(
            content,
            status,
            cache=REVALIDATE if cacheable and not current_caller().subject else PRIVATE,
            etag=f'"{content["version"]}"' if has_etag else None,
            location=location.format_map(content) if location else None,
        )

    return respond
