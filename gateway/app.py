"""The composition root: settings in, an ASGI application out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from functions.runtime.clock import Clock, SystemClock
from functions.runtime.factories import remote_keys
from functions.runtime.key_set import KeySetCache
from functions.runtime.tokens import JwtVerifier, TokenVerifier
from gateway import openapi
from gateway.clients import Clients
from gateway.docs import add_docs
from gateway.errors import on_http, on_validation
from gateway.limits import ConcurrencyLimiter, TokenBuckets
from gateway.middleware.cors import cross_origin
from gateway.middleware.edge import Edge
from gateway.middleware.request_context import AppState
from gateway.routes import (
    admin,
    notifications,
    orders,
    payments,
    products,
    sessions,
    users,
    webhooks,
    wellknown,
)
from gateway.routing import PublicRoute, require_access
from gateway.settings import Settings
from observability import metrics

# Matching goes through the routes in turn, so the busiest domains come first.
_DOMAINS = (products, orders, payments, users, sessions, notifications, admin, wellknown, webhooks)


def compose(
    settings: Settings,
    *,
    verifier: TokenVerifier | None = None,
    clients: Clients | None = None,
    clock: Clock | None = None,
) -> AppState:
    """The collaborators of the routes; what is given replaces what the settings would make."""
    clients = clients or Clients(settings)
    clock = clock or SystemClock()
    keys = KeySetCache(remote_keys(clients.users.peer), clock)
    issuer, audience = settings.token_issuer, settings.token_audience
    # No service key: a service token has no business at the edge.
    verifier = verifier or JwtVerifier(keys, None, issuer, audience, clock)
    rate, burst = settings.rate_limit_per_second, settings.rate_limit_burst
    return AppState(
        settings=settings,
        clients=clients,
        verifier=verifier,
        keys=keys,
        addresses=TokenBuckets(rate, burst),
        users=TokenBuckets(rate, burst),
        exports=TokenBuckets(settings.exports_per_hour / 3600, settings.exports_per_hour, name="exports"),
        slots=ConcurrencyLimiter(settings.max_concurrency, "OVERLOADED"),
        callers=ConcurrencyLimiter(
            settings.max_connections, "TOO_MANY_AT_ONCE", settings.max_concurrency_each
        ),
        streams=ConcurrencyLimiter(settings.max_streams, "TOO_MANY_STREAMS", settings.max_streams_each),
    )


def create_app(
    settings: Settings,
    *,
    verifier: TokenVerifier | None = None,
    clients: Clients | None = None,
    clock: Clock | None = None,
) -> FastAPI:
    """The gateway. Tests pass fakes in; `app.state.gateway` is what was composed.

    Raises UndeclaredRoute for a route that does not say who may call it.
    """
    gateway = compose(settings, verifier=verifier, clients=clients, clock=clock)
    app = _empty_app(gateway)
    for domain in _DOMAINS:
        app.router.routes.extend(domain.router.routes)
    _add_probes(app, gateway)
    add_docs(app)
    require_access(app.router.routes)
    _describe(app)
    app.add_middleware(Edge, gateway=gateway)
    if settings.console_url and settings.shop_env == "development":
        from gateway.middleware.console_proxy import ConsoleProxy  # on a developer's machine only

        app.add_middleware(ConsoleProxy, url=settings.console_url)
    if origins := settings.origins():
        app.add_middleware(cross_origin, routes=list(app.router.routes), origins=origins)
    return app


def _empty_app(gateway: AppState) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await gateway.clients.close()

    app = FastAPI(
        title=openapi.TITLE,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={RequestValidationError: on_validation, HTTPException: on_http},
    )
    app.state.gateway = gateway
    return app


def _describe(app: FastAPI) -> None:
    def document() -> dict[str, object]:
        if not app.openapi_schema:
            app.openapi_schema = openapi.document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way to replace it


def _add_probes(app: FastAPI, gateway: AppState) -> None:
    async def live(_: Request) -> Response:
        return Response(b"ok", media_type="text/plain")

    async def ready(_: Request) -> Response:
        # Other services are not asked: they may be scaled to zero, and are woken by the first call that needs them.
        if gateway.draining.is_set():
            return Response(b"stopping", 503, media_type="text/plain")
        return Response(b"ok", media_type="text/plain")

    async def exposition(request: Request) -> Response:
        content, content_type = metrics.exposition(", ".join(request.headers.getlist("accept")))
        return Response(content, headers={"content-type": content_type})

    app.router.routes.append(PublicRoute("/healthz/live", live, methods=["GET"]))
    app.router.routes.append(PublicRoute("/healthz/ready", ready, methods=["GET"]))
    app.router.routes.append(PublicRoute("/metrics", exposition, methods=["GET"]))
