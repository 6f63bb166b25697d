"""The gateway's variables, beside those that every part reads."""

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
    """How long, at the end, connections are still answered and told to close before they are closed."""
    dead_letters_url: str = "http://127.0.0.1:8090/dead-letters"
    """Where dead letters are read and replayed."""

    wake: str = ""
    """Services that may be at zero (host:port, comma-separated). Those before the first semicolon are pinged while the
    gateway starts and when an order comes, the others when an order was placed."""

    deadline_seconds: Seconds = 5.0
    """The deadline of a request. Each call that it causes gets what is left of it."""

    max_body_bytes: Positive = 1024 * 1024
    """The largest body of a request."""
    body_seconds: Seconds = 10.0
    """Time to receive a body in full, and for a client to read as many times 8 KiB."""
    max_header_bytes: Positive = 32 * 1024
    """The largest request line with its headers."""
    header_seconds: Seconds = 10.0
    """Time to receive the request line and the headers, from the first byte or the connection on."""
    keep_alive_seconds: Positive = 75
    """How long an idle connection is kept."""

    rate_limit_per_second: Annotated[float, Meta(gt=0)] = 1000.0
    """Tokens that each signed-in user and each network address gets a second. A request takes 1 token, a search 10, a
    password 20, an export 50."""
    rate_limit_burst: Positive = 2000
    """The most tokens that are saved up."""
    exports_per_hour: Positive = 5
    """Exports of one person's own data."""
    trusted_proxy_hops: Annotated[int, Meta(ge=0, le=10)] = 0
    """Proxies of ours that append to `X-Forwarded-For`. 0: the header is ignored."""
    client_address_header: str = ""
    """The header that the ingress overwrites with the client's address; it wins over `X-Forwarded-For`. Empty:
    none."""

    max_concurrency: Positive = 1000
    """Requests in progress. A request counts once its body has arrived."""
    max_concurrency_each: Positive = 200
    """Requests of one network address (IPv6: a /64), including those whose body is still arriving."""
    max_connections: Positive = 4000
    """Connections."""
    max_connections_each: Positive = 500
    """Connections of one network address (IPv6: a /64), where no proxy of ours is between."""
    max_streams: Positive = 500
    """Streams of server-sent events."""
    max_streams_each: Positive = 20
    """Streams of one person."""
    stream_seconds: Seconds = 540.0
    """How long a stream lasts before the client reconnects. Less than the `timeoutSeconds` of the manifests (600)."""
    heartbeat_seconds: Seconds = 15.0
    """The interval of a stream's heartbeats."""

    console_url: str = ""
    """The console to show at /console, in development. `make up` sets it."""

    cors_origins: str = ""
    """Origins, separated by commas, whose pages may call the API from a browser."""
    access_log: bool = True
    """Log a line for each request. Failures are always logged."""

    def origins(self) -> list[str]:
        """CORS_ORIGINS as a list."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]
