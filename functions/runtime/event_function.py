"""The receiver of a service's CloudEvents: a functions-framework function with the signature `http`.

Responses, and how Knative treats them:

- 204: the event is handled, now or by an earlier delivery.
- 400: the request is not a CloudEvent, or its type has no subscription. 403: it is not signed by its source. 413: it
  is too large. 422: it is refused for good. After these the event is not retried but goes to the dead letters.
- 503 with Retry-After: a transient failure. 500: a bug. After these the event is redelivered.

A 2xx response never has a body, because a broker treats the body as a reply event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from events.asgi import HeaderList, header
from events.catalog import Payload, SweepDue
from events.cloudevent import BadEvent, CloudEvent, parse
from events.signatures import REASONS, BadSignature
from functions.runtime.app import Function, Handler
from functions.runtime.clock import Clock
from functions.runtime.errors import TRANSIENT, Code, ServiceError, invalid, unavailable
from functions.runtime.inbox import InboxRecord, inbox_record
from functions.runtime.store.port import AlreadyDone
from observability import context, metrics, tracing
from observability.failpoints import failpoint
from observability.headers import combine

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger("shop.events")

MAX_EVENT_BYTES = 1024 * 1024
HANDLER_SECONDS = 28.0
_TOO_LARGE = invalid("The event is larger than 1 MiB.", reason="EVENT_TOO_LARGE")

Sweep = Callable[[], Awaitable[None]]


class EventFunction:
    """Handles the requests of one function. `sweep` runs before the domain's own handler of SweepDue.

    A handler is cancelled after `seconds`. Brokers wait longer for a response, so the handler has ended before the
    event is redelivered.
    """

    def __init__(self, function: Function, sweep: Sweep, seconds: float = HANDLER_SECONDS) -> None:
        self._name = function.name
        self._seconds = seconds
        self._sweep = sweep
        self._handlers = {payload.TYPE: (payload, handler) for payload, handler in function.subscriptions.items()}
        self._handlers.setdefault(SweepDue.TYPE, (SweepDue, _no_sweep))
        self._signatures = function.signatures
        for reason in REASONS:  # the counters exist from the start, so that a rate shows their first increase
            metrics.FORGED.labels(self._name, reason)
        self._sweeps = _SweepLimiter(function.clock)
        self._observed: dict[tuple[str, str], metrics.Observed] = {}

    async def __call__(self, request: Request) -> Response:
        """Handle one request."""
        start = perf_counter()
        seen: dict[str, str] = {}
        try:
            outcome, error = await self._attempt(request, seen)
        except Exception:
            log.exception("event_crashed", extra=seen)
            outcome, error = "crashed", ServiceError(Code.INTERNAL, "INTERNAL", "The handler failed.")
        self._record(seen, outcome, error, perf_counter() - start)
        return _answer(outcome, error)

    async def _attempt(self, request: Request, seen: dict[str, str]) -> tuple[str, ServiceError | None]:
        try:
            event = await _read(request)
            seen.update(type=event.type, event_id=event.id, source=event.source)
            if subject := event.attributes.get("subject"):
                seen["subject"] = subject
            _enter_context(event, request.scope["headers"])
            await self._deliver(event)
        except AlreadyDone:
            return "duplicate", None
        except _TooManySweeps:
            return "skipped", None
        except ServiceError as error:
            return ("retry" if error.code in TRANSIENT else "refused"), error
        return "handled", None

    async def _deliver(self, event: CloudEvent) -> None:
        payload, handler = self._handlers.get(event.type, (None, None))
        if payload is None or handler is None:
            raise invalid(f"There is no subscription to {event.type[:100]}.", reason="EVENT_TYPE_UNKNOWN")
        data = self._verified(payload, event)
        inbox = inbox_record(event.source, event.id, _time(event))
        operation = _processing(event.type, event.source)
        with operation.span({"messaging.message.id": event.id}, harmless=(AlreadyDone,)):
            await self._handle(handler, data, inbox)

    def _verified(self, payload: type[Payload], event: CloudEvent) -> Payload:
        """Verify the event's source, signature and subject, and return its data.

        SweepDue comes from Knative's PingSource and has no signature. It only starts a sweep, which is safe at any
        time, so only its frequency is limited.
        """
        if payload is SweepDue:
            self._sweeps.acquire()
            return _decode(payload, event.data)
        if event.source != payload.SOURCE:
            raise invalid("Events of this type have another source.", reason="EVENT_SOURCE_UNKNOWN")
        try:
            data = _decode(payload, self._signatures.verify(event.attributes, event.data))
        except BadSignature as error:
            metrics.FORGED.labels(self._name, error.reason).inc()
            raise ServiceError(Code.PERMISSION_DENIED, error.reason, str(error)) from None
        if event.attributes.get("subject") != data.subject:
            raise ServiceError(
                Code.FAILED_PRECONDITION,
                "EVENT_SUBJECT_WRONG",
                "The subject is not that of the data.",
            )
        return data

    async def _handle(self, handler: Handler, data: Payload, inbox: InboxRecord) -> None:
        failpoint("event.handle.before")
        try:
            async with asyncio.timeout(self._seconds):
                if isinstance(data, SweepDue):
                    await self._sweep()
                await handler(data, inbox)
        except TimeoutError:
            raise unavailable("EVENT_TIMEOUT", "The event could not be handled in time.") from None
        failpoint("event.handle.after")

    def _record(self, seen: dict[str, str], outcome: str, error: ServiceError | None, took: float) -> None:
        key = (seen.get("type", "") if seen.get("type") in self._handlers else "other", outcome)
        observed = self._observed.get(key)
        if observed is None:
            observed = self._observed[key] = metrics.Observed(metrics.EVENTS, self._name, *key)
        observed.observe(took)
        if not log.isEnabledFor(logging.INFO):
            return
        extra: dict[str, Any] = {**seen, "outcome": outcome, "duration_ms": round(took * 1000, 3)}
        if error is not None:
            extra["reason"] = error.reason
        log.log(logging.INFO if error is None else logging.WARNING, "event", extra=extra)


@lru_cache(256)  # called only for types with a subscription
def _processing(type_: str, source: str) -> tracing.SpanTemplate:
    attributes: dict[str, tracing.Attribute] = {
        **tracing.MESSAGING,
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": type_,
        "cloudevents.event_type": type_,
        "cloudevents.event_source": source,
    }
    return tracing.SpanTemplate(f"process {type_}", "CONSUMER", attributes)


class _TooManySweeps(Exception):
    """Too many sweeps ran within the last seconds. Another sweep would find nothing to do."""


class _SweepLimiter:
    """A limit for sweeps, which any sender can start: `BURST` sweeps at once, then one every `EVERY` seconds."""

    BURST = 20
    EVERY = 3.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = float(self.BURST)
        self._at = clock.now()

    def acquire(self) -> None:
        """Raise _TooManySweeps above the limit."""
        now = self._clock.now()
        gained = (now - self._at).total_seconds() / self.EVERY
        self._left, self._at = min(float(self.BURST), self._left + gained), now
        if self._left < 1:
            raise _TooManySweeps
        self._left -= 1


def _enter_context(event: CloudEvent, headers: HeaderList) -> None:
    """Continue the trace of the request, or that of the event if the request has none."""
    sent = combine([line for line in headers if line[0] in (b"traceparent", b"tracestate")], b", ")
    attributes = event.attributes
    traceparent, tracestate = attributes.get("traceparent"), attributes.get("tracestate")
    if b"traceparent" in sent:
        traceparent, tracestate = (
            sent[b"traceparent"].decode("latin-1"),
            sent.get(b"tracestate", b"").decode("latin-1"),
        )
    context.enter(context.incoming(attributes.get("correlationid"), traceparent, tracestate))


async def _no_sweep(_: Payload, __: InboxRecord) -> None:
    """Do nothing, because the domain has no sweep of its own."""


async def _read(request: Request) -> CloudEvent:
    """Return the CloudEvent of a request in binary or structured mode. Raises INVALID_ARGUMENT."""
    if request.method != "POST" or request.scope["path"] != "/":
        raise invalid("CloudEvents are accepted by POST at /.", reason="EVENT_EXPECTED")
    try:
        events = parse(request.scope["headers"], await _body(request))
    except BadEvent:
        events = []
    if len(events) != 1:
        raise invalid("The request is not a CloudEvent 1.0.", reason="EVENT_MALFORMED")
    return events[0]


async def _body(request: Request) -> bytes:
    declared = header(request.scope, b"content-length")
    length = declared or "0"
    if not length.isdigit() or int(length) > MAX_EVENT_BYTES:
        raise _TOO_LARGE
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_EVENT_BYTES:
            raise _TOO_LARGE
    # A server other than ours may truncate the body (see events.http_server.HttpProtocol).
    if declared and len(body) != int(length):
        raise invalid("The body does not have the length of Content-Length.", reason="EVENT_INCOMPLETE")
    return bytes(body)


def _decode(payload: type[Payload], data: bytes) -> Payload:
    try:
        return msgspec.json.decode(data or b"{}", type=payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ServiceError(Code.FAILED_PRECONDITION, "EVENT_DATA_INVALID", f"The data is not valid: {error}") from None


def _time(event: CloudEvent) -> datetime:
    """Return the event's time, which the parser has checked, or the present time if it has none."""
    sent = event.attributes.get("time")
    return datetime.fromisoformat(sent.upper()) if sent else datetime.now(UTC)


_STATUS = {Code.INVALID_ARGUMENT: 400, Code.PERMISSION_DENIED: 403, Code.INTERNAL: 500}


def _answer(outcome: str, error: ServiceError | None) -> Response:
    from starlette.responses import Response  # imported only to serve events

    if error is None:
        return Response(status_code=204)
    status = 503 if outcome == "retry" else _STATUS.get(error.code, 422)
    if error is _TOO_LARGE:
        status = 413
    headers = {"content-type": "application/json"}
    if outcome == "retry":
        headers["retry-after"] = str(max(1, round(error.retry_after or 1)))
    body = msgspec.json.encode({"code": error.code.value, "reason": error.reason, "message": error.message})
    return Response(body, status_code=status, headers=headers)
