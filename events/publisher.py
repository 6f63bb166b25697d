"""Publish to the broker, one CloudEvent per request, in binary mode (CloudEvents HTTP binding 1.0.2, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from events.cloudevent import header_block, header_value
from events.http_client import HttpClient, RequestFailed
from events.outbox import OutboxRow
from events.signatures import EXTENSION, Signer
from observability.failpoints import failpoint

TIMEOUT_SECONDS = 35.0
"""Seconds to wait for the broker. It exceeds a subscriber's timeout, because some brokers (Knative's in-memory channel)
respond only after their subscribers.
"""


class NotPublished(Exception):
    """The broker did not accept the event; the message says why, in one line."""


class Publisher(Protocol):
    """Publishes outbox rows to a broker."""

    async def publish(self, row: OutboxRow) -> None:
        """Publish the event; return when the broker has accepted it. Raises NotPublished."""

    async def close(self) -> None:
        """Close all connections."""


class HttpPublisher:
    """Signs events and posts them to `broker_url` over keep-alive connections; `timeout` is in seconds.

    A redirect counts as a failure. A row is signed with the current key at the time of publishing. `authorization`
    returns the header line that authenticates this service to the broker, or nothing.
    """

    def __init__(
        self,
        broker_url: str,
        signer: Signer,
        timeout: float = TIMEOUT_SECONDS,
        authorization: Callable[[], bytes] = bytes,
    ) -> None:
        self._signer = signer
        self._client = HttpClient()
        self._target = self._client.target(broker_url)
        self._timeout = timeout
        self._authorization = authorization

    async def publish(self, row: OutboxRow) -> None:
        try:
            failpoint("outbox.publish.before")
            head = headers(row, self._signer) + self._authorization()
            answer = await self._client.post(self._target, head, row.data, self._timeout)
            failpoint("outbox.publish.after")
        except RequestFailed as error:
            raise NotPublished(str(error)) from None
        if answer.status >= 300:
            raise NotPublished(f"the broker answered {answer.status}")

    async def close(self) -> None:
        """Close all connections."""
        self._client.close()


def dataschema(event_type: str) -> str:
    """Return the URN of a type's schema, which is the `$id` in events/schemas/<type>.json."""
    return f"urn:{event_type.replace('.', ':')}"


def headers(row: OutboxRow, signer: Signer) -> bytes:
    """Return the signed event's attributes as header lines. The trace context is both an extension and a header."""
    attributes = {
        "specversion": "1.0",
        "id": row.id,
        "source": row.source,
        "type": row.type,
        "subject": row.subject,
        "time": row.time.isoformat().replace("+00:00", "Z"),
        "dataschema": dataschema(row.type),
        "datacontenttype": "application/json",
        "partitionkey": row.subject,
    }
    attributes[EXTENSION] = signer.sign(attributes, row.data)
    if row.correlation_id:
        attributes["correlationid"] = row.correlation_id
    hop = b""
    if row.traceparent:
        attributes["traceparent"] = row.traceparent
        hop = b"traceparent: %b\r\n" % row.traceparent.encode()
    if row.traceparent and row.tracestate:
        attributes["tracestate"] = row.tracestate
        hop += f"tracestate: {header_value(row.tracestate)}\r\n".encode()
    return header_block(attributes) + hop
