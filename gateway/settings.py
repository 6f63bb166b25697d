"""The gateway's variables, beside those that every part reads."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from functions.runtime.settings import Port, RuntimeSettings

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """A field's variable is its name in upper case. Times are in seconds, sizes in bytes."""

    http_port: Port = 8080
    http_fd: Annotated[int, Meta(ge=3)] | None = None
    """A listening socket that whoever started this process holds, in place of a port: then new connections wait for the
    next process instead of being refused while there is none."""
    notice_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.25
    """At the end, how long connections are still answered, and told to close, before they are closed."""
    dead_letters_url: str = "http://127.0.0.1:8090/dead-letters"

    deadline_seconds: Seconds = 5.0
    """For a request as a whole; every call that it causes gets what is left of it."""

    max_body_bytes: Positive = 1024 * 1024
    body_seconds: Seconds = 10.0
    """To receive a request's body in full, and for a client to read as many times 8 KiB; a slower one is cut off."""
    max_header_bytes: Positive = 32 * 1024
    header_seconds: Seconds = 10.0
    """To receive the request line and the headers, from the first byte (or the connection) on."""
    keep_alive_seconds: Positive = 75

    rate_limit_per_second: Annotated[float, Meta(gt=0)] = 1000.0
    rate_limit_burst: Positive = 2000
    """Each signed-in user and each network address may take this many at once, then so many a second."""
    exports_per_hour: Positive = 5
    """Of one person's own data, which every domain is asked for."""
    trusted_proxy_hops: Annotated[int, Meta(ge=0, le=10)] = 0
    """How many proxies of ours append to X-Forwarded-For; 0: the header is not believed."""
    client_address_header: str = ""
    """A header that our ingress overwrites with the caller's address; it beats X-Forwarded-For, whose length depends on
    who is between (Knative's activator or not). Empty: there is none."""

    max_concurrency: Positive = 1000
    """Requests at work at once. One whose body is still coming does not count."""
    max_concurrency_each: Positive = 200
    """Requests at once of one network address (IPv6: of a /64), also those whose body is still coming."""
    max_connections: Positive = 4000
    max_connections_each: Positive = 500
    """Connections of one network address (IPv6: of a /64), where no proxy of ours is between."""
    max_streams: Positive = 500
    max_streams_each: Positive = 20
    """Of one person, so that nobody holds them all."""
    stream_seconds: Seconds = 540.0
    """Less than the 600 that the platform allows a request (timeoutSeconds), so that streams end in order."""
    heartbeat_seconds: Seconds = 15.0

    console_url: str = ""
    """The local platform's console, shown at /console; empty, or in production: none."""

    cors_origins: str = ""
    """Origins, comma-separated, whose pages may call the API from a browser; empty: none."""
    access_log: bool = True
    """A line for each request; failures are always logged."""

    def origins(self) -> list[str]:
        """CORS_ORIGINS as a list."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]
