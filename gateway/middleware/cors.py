"""CORS: the methods and headers that pages of other origins may send and read, as the routes state them."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from gateway.routing import ApiRoute

SENT = ("authorization", "baggage", "content-type", "traceparent", "tracestate", "x-correlation-id")
"""Request headers that every route accepts, or that tracing in a browser adds to every request."""
ANSWERED = ("Location", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate", "X-Correlation-Id")
"""Response headers that any route may send."""
METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
_MAX_AGE_SECONDS = 600


def cross_origin(app: ASGIApp, routes: Iterable[BaseRoute], origins: list[str]) -> CORSMiddleware:
    """Let pages of `origins` call `app`, which serves `routes`."""
    stated = [route for route in routes if isinstance(route, ApiRoute)]
    sent = {name.lower() for route in stated for name in route.request_headers}
    answered = {name for route in stated for name in route.response_headers}
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=sorted(sent.union(SENT)),
        expose_headers=sorted(answered.union(ANSWERED)),
        max_age=_MAX_AGE_SECONDS,
    )
