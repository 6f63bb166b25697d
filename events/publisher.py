"""Publishing to the broker: one CloudEvent a request, in binary mode (CloudEvents HTTP binding 1.0.2, section 3.1)."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Protocol

from events.cloudevent import header_value
from events.outbox import OutboxRow

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_SECONDS = 35.0
"""A broker may answer only when its subscribers have (Knative's in-memory channel does), which takes their timeout."""

CONNECTIONS = 64


class NotPublished(Exception):
    """The broker did not take the event; the message says why, in one line."""


class Publisher(Protocol):
    """Takes events to a broker."""

    async def publish(self, row: OutboxRow) -> None:
        """Return when the broker has the event for good; raises NotPublished otherwise."""

    async def close(self) -> None:
        """Let go of connections."""


class HttpPublisher:
    """Posts to `broker_url` over a pool of kept connections; `timeout` is in seconds.

    The client library is imported at the first event, so that it costs no cold start.
    """

    def __init__(self, broker_url: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._url = broker_url
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()

    async def publish(self, row: OutboxRow) -> None:
        """See Publisher."""
        session = self._session or await self._open()
        try:
            async with session.post(
                self._url, data=row.data, headers=headers(row), allow_redirects=False
            ) as answer:
                if answer.status >= 300:
                    raise NotPublished(f"the broker answered {answer.status}")
        except (OSError, self._client_error) as error:  # TimeoutError is an OSError
            raise NotPublished(type(error).__name__) from None

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                # A fifth of a second of imports, in a thread: whoever waits for an answer goes first.
                client = await asyncio.to_thread(importlib.import_module, "aiohttp")
                self._client_error: type[Exception] = client.ClientError
                self._session = client.ClientSession(
                    connector=client.TCPConnector(limit=CONNECTIONS, ttl_dns_cache=10),
                    timeout=client.ClientTimeout(total=self._timeout, connect=5),
                    skip_auto_headers=("accept", "accept-encoding", "user-agent"),
                )
            return self._session

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()


def dataschema(event_type: str) -> str:
    """The URI of a type's schema, which is the `$id` of events/schemas/<type>.json: a name, not an address."""
    return f"urn:{event_type.replace('.', ':')}"


def headers(row: OutboxRow) -> dict[str, str]:
    """The event's attributes as HTTP headers; the trace context both as extension and for this hop."""
    found = {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": row.id,
        "ce-source": row.source,
        "ce-type": row.type,
        "ce-subject": row.subject,
        "ce-time": row.time.isoformat().replace("+00:00", "Z"),
        "ce-dataschema": dataschema(row.type),
        "ce-partitionkey": row.subject,
    }
    if row.correlation_id:
        found["ce-correlationid"] = row.correlation_id
    if row.traceparent:
        found["ce-traceparent"] = found["traceparent"] = row.traceparent
    if row.tracestate:
        found["ce-tracestate"] = found["tracestate"] = row.tracestate
    return {name: header_value(value).decode() for name, value in found.items()}
