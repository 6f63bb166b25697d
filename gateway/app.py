"""The composition root: creates the ASGI application from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException

from functions.runtime.clock import Clock, SystemClock
from functions.runtime.factories import remote_keys
from functions.runtime.key_set import KeySetCache
from functions.runtime.tokens import JwtVerifier, TokenVerifier
from gateway import openapi
from gateway.app_state import AppState
from gateway.clients import Clients
from gateway.docs import add_docs
from gateway.limits import ConcurrencyLimiter, LimitsMiddleware, TokenBuckets
from gateway.middleware.access_log import AccessLogMiddleware
from gateway.middleware.cors import cross_origin
from gateway.middleware.errors import ErrorMiddleware, on_http, on_validation
from gateway.middleware.prewarm import PrewarmMiddleware
from gateway.middleware.request_context import RequestContextMiddleware
from gateway.middleware.response_headers import ResponseHeadersMiddleware
from gateway.prewarm import prewarm
from gateway.routes import admin, notifications, orders, payments, products, sessions, users, webhooks, wellknown
from gateway.routing import PublicRoute, require_access
from gateway.settings import Settings
from observability import metrics

# Routes are matched in this order, so that the busiest domains come first.
_DOMAINS = (products, orders, payments, users, sessions, notifications, admin, wellknown, webhooks)

# AccessLogMiddleware records each request. FastAPI's own spans would record it twice, and its logs would contain what
# clients send.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}


def create_app(
    settings: Settings,
    *,
    verifier: TokenVerifier | None = None,
    clients: Clients | None = None,
    clock: Clock | None = None,
    ping: Callable[[str], object] = prewarm,
) -> FastAPI:
    """Compose the gateway; `app.state.gateway` is its AppState. Tests pass fakes.

    Raises RouteWithoutAccess for a route that does not state who may call it.
    """
    state = compose(settings, verifier=verifier, clients=clients, clock=clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await state.clients.close()

    app = FastAPI(
        title=openapi.TITLE,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={RequestValidationError: on_validation, HTTPException: on_http},
        telemetry=_NO_TELEMETRY,
    )
    app.state.gateway = state
    for domain in _DOMAINS:
        app.router.routes.extend(domain.router.routes)
    _add_probes(app, state)
    add_docs(app)
    require_access(app.router.routes)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign] # FastAPI's documented way to replace it
    _add_middleware(app, state)
    if settings.wake:
        app.add_middleware(PrewarmMiddleware, wake=settings.wake, ping=ping)
    return app


def compose(
    settings: Settings,
    *,
    verifier: TokenVerifier | None = None,
    clients: Clients | None = None,
    clock: Clock | None = None,
) -> AppState:
    """Create the collaborators that all requests share; an argument replaces the one that the settings would create."""
    clients = clients or Clients(settings)
    clock = clock or SystemClock()
    keys = KeySetCache(remote_keys(clients.users.grpc), clock)
    issuer, audience = settings.token_issuer, settings.token_audience
    # The verifier gets no service key, because the gateway does not accept tokens of services.
    verifier = verifier or JwtVerifier(keys, None, issuer, audience, clock)
    rate, burst = settings.rate_limit_per_second, settings.rate_limit_burst
    return AppState(
        settings=settings,
        clients=clients,
        verifier=verifier,
        keys=keys,
        address_rates=TokenBuckets(rate, burst),
        user_rates=TokenBuckets(rate, burst),
        export_rates=TokenBuckets(settings.exports_per_hour / 3600, settings.exports_per_hour, name="exports"),
        active_requests=ConcurrencyLimiter(settings.max_concurrency, "OVERLOADED"),
        open_requests=ConcurrencyLimiter(settings.max_connections, "TOO_MANY_AT_ONCE", settings.max_concurrency_each),
        streams=ConcurrencyLimiter(settings.max_streams, "TOO_MANY_STREAMS", settings.max_streams_each),
    )


def _add_middleware(app: FastAPI, state: AppState) -> None:
    """Add the middleware from the innermost to the outermost."""
    settings = state.settings
    app.add_middleware(LimitsMiddleware)
    app.add_middleware(ErrorMiddleware)
    app.add_middleware(ResponseHeadersMiddleware, state=state)
    app.add_middleware(AccessLogMiddleware, everything=settings.access_log)
    app.add_middleware(RequestContextMiddleware, state=state)
    if settings.console_url and settings.shop_env == "development":
        from gateway.middleware.console_proxy import ConsoleProxy  # on a developer's machine only

        app.add_middleware(ConsoleProxy, url=settings.console_url)
    if origins := settings.origins():
        app.add_middleware(cross_origin, routes=list(app.router.routes), origins=origins)


def _add_probes(app: FastAPI, state: AppState) -> None:
    async def live(_: Request) -> Response:
        return Response(b"ok", media_type="text/plain")

    async def ready(_: Request) -> Response:
        # Other services are not checked: they may be scaled to zero, and the first call to one starts it.
        if state.draining.is_set():
            return Response(b"stopping", 503, media_type="text/plain")
        return Response(b"ok", media_type="text/plain")

    async def exposition(request: Request) -> Response:
        content, content_type = metrics.exposition(", ".join(request.headers.getlist("accept")))
        return Response(content, headers={"content-type": content_type})

    app.router.routes.append(PublicRoute("/healthz/live", live, methods=["GET"]))
    app.router.routes.append(PublicRoute("/healthz/ready", ready, methods=["GET"]))
    app.router.routes.append(PublicRoute("/metrics", exposition, methods=["GET"]))
