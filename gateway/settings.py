"""Settings of the gateway, in addition to RuntimeSettings, which the services have, too."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from functions.runtime.settings import Port, RuntimeSettings

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """Settings that only the gateway reads. Times are in seconds, sizes in bytes."""

    http_port: Port = 8080
    """The port of the API."""
    http_fd: Annotated[int, Meta(ge=3)] | None = None
    """An inherited listening socket, instead of a port: `make up` uses it so that a restart refuses no connection."""
    notice_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.25
    """How long, at shutdown, connections are still served, and told to close, before they are closed."""
    dead_letters_url: str = "http://127.0.0.1:8090/dead-letters"
    """Where dead letters are read and replayed."""

    wake: str = ""
    """Services that may be scaled to zero, as host:port, separated by commas, in two groups separated by a semicolon.
    The first group is pinged while the gateway starts and when an order arrives, the second once an order was accepted.
    """

    deadline_seconds: Seconds = 5.0
    """The deadline of a request. Each call that the request causes gets the remaining time."""

    max_body_bytes: Positive = 1024 * 1024
    """The largest body of a request."""
    body_seconds: Seconds = 10.0
    """Maximum time to receive a request body. Also the interval over which a client must read at least 8 KiB a second
    of a response.
    """
    max_header_bytes: Positive = 32 * 1024
    """The largest request line with its headers."""
    header_seconds: Seconds = 10.0
    """Maximum time to receive the request line and the headers: from their first byte, or on a new connection from its
    start.
    """
    keep_alive_seconds: Positive = 75
    """How long an idle connection is kept."""

    rate_limit_per_second: Annotated[float, Meta(gt=0)] = 1000.0
    """Tokens that each signed-in user and each network address gets a second. A request takes 1 token, a search 10, a
    password 20, an export 50."""
    rate_limit_burst: Positive = 2000
    """The maximum number of tokens that accumulate."""
    exports_per_hour: Positive = 5
    """The maximum number of exports of one person's data in an hour."""
    trusted_proxy_hops: Annotated[int, Meta(ge=0, le=10)] = 0
    """The number of our own proxies that append to `X-Forwarded-For`. With 0, the header is ignored."""
    client_address_header: str = ""
    """The header that the ingress sets to the client's address; it overwrites any value from the client. It overrides
    `X-Forwarded-For`. Empty: none.
    """

    max_concurrency: Positive = 1000
    """The maximum number of requests in progress. A request counts once its body has arrived."""
    max_concurrency_each: Positive = 200
    """The maximum number of requests of one network address (IPv6: a /64), including those whose body is still
    arriving.
    """
    max_connections: Positive = 4000
    """The maximum number of connections."""
    max_connections_each: Positive = 500
    """The maximum number of connections of one network address (IPv6: a /64). It does not apply behind our own proxies.
    """
    max_streams: Positive = 500
    """The maximum number of streams of server-sent events."""
    max_streams_each: Positive = 20
    """The maximum number of streams of one person."""
    stream_seconds: Seconds = 540.0
    """The maximum duration of a stream; the client then reconnects. Less than the `timeoutSeconds` of the manifests
    (600).
    """
    heartbeat_seconds: Seconds = 15.0
    """The interval of a stream's heartbeats."""

    console_url: str = ""
    """The URL of the console to show at /console, in development. `make up` sets it."""

    cors_origins: str = ""
    """Origins, separated by commas, whose pages may call the API from a browser."""
    access_log: bool = True
    """Log a line for each request. Failures are always logged."""

    def origins(self) -> list[str]:
        """Return CORS_ORIGINS as a list."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]
