"""The event door: a functions-framework function of the `http` signature that takes CloudEvents.

Answers, and what Knative makes of them: 204 handled (or handled before); 400 no CloudEvent, or one nobody here
subscribed to; 403 one that its source did not sign; 413 too large; 422 understood and refused for good, dead-lettered;
503 with Retry-After a passing fault, redelivered; 500 a bug, redelivered. Never a body with a 2xx: a broker takes it
for a reply event.
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

from events.catalog import Payload, SweepDue
from events.signatures import REASONS, SIGNED, BadSignature
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
    """Turns requests into deliveries for one function; `sweep` runs before the domain's own.

    A handler has `seconds`, less than a broker waits: it must not go on while the event is delivered again.
    """

    def __init__(self, function: Function, sweep: Sweep, seconds: float = HANDLER_SECONDS) -> None:
        self._name = function.name
        self._seconds = seconds
        self._sweep = sweep
        self._handlers = {
            payload.TYPE: (payload, handler) for payload, handler in function.subscriptions.items()
        }
        self._handlers.setdefault(SweepDue.TYPE, (SweepDue, _nothing))
        self._signatures = function.signatures
        for reason in REASONS:  # counters that are there before they count: their first increase is one, too
            metrics.FORGED.labels(self._name, reason)
        self._sweeps = _SweepBudget(function.clock)
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
        self._account(seen, outcome, error, perf_counter() - start)
        return _answer(outcome, error)

    async def _attempt(self, request: Request, seen: dict[str, str]) -> tuple[str, ServiceError | None]:
        try:
            event = await _read(request)
            seen.update(type=event["type"], event_id=event["id"], source=event["source"])
            if subject := event.get("subject"):
                seen["subject"] = subject
            await self._deliver(event, combine(request.scope["headers"], b", "))
        except AlreadyDone:
            return "duplicate", None
        except _SweptJustNow:
            return "skipped", None
        except ServiceError as error:
            return ("retry" if error.code in TRANSIENT else "refused"), error
        return "handled", None

    async def _deliver(self, event: Any, headers: dict[bytes, bytes]) -> None:
        hop = [headers.get(name, b"").decode("latin-1") for name in (b"traceparent", b"tracestate")]
        trace = hop if hop[0] else [_text(event, "traceparent"), _text(event, "tracestate")]
        context.enter(context.incoming(_text(event, "correlationid"), *trace))
        payload, handler = self._handlers.get(event["type"], (None, None))
        if payload is None or handler is None:
            raise invalid(f"Nobody here subscribed to {event['type'][:100]}.", reason="EVENT_TYPE_UNKNOWN")
        data = self._genuine(payload, event)
        inbox = inbox_record(event["source"], event["id"], _time(event.get("time")))
        operation = _processing(event["type"], event["source"])
        with operation.span({"messaging.message.id": event["id"]}, harmless=(AlreadyDone,)):
            await self._handle(handler, data, inbox)

    def _genuine(self, payload: type[Payload], event: Any) -> Payload:
        """The data of an event that its source sent, about what its subject says.

        A tick has no signature: its source is Knative's, and all it can do is start a sweep, which may run at any time.
        So only its frequency is bounded.
        """
        if payload is SweepDue:
            self._sweeps.take()
            return _decode(payload, event.data)
        if event["source"] != payload.SOURCE:
            raise invalid("Events of this type come from somebody else.", reason="EVENT_SOURCE_UNKNOWN")
        attributes = {name: value for name in SIGNED if (value := _text(event, name))}
        try:
            data = _decode(payload, self._signatures.verify(attributes, event.data or b""))
        except BadSignature as error:
            metrics.FORGED.labels(self._name, error.reason).inc()
            raise ServiceError(Code.PERMISSION_DENIED, error.reason, str(error)) from None
        if attributes.get("subject") != data.subject:
            raise ServiceError(
                Code.FAILED_PRECONDITION,
                "EVENT_SUBJECT_WRONG",
                "The subject is not the one that the data name.",
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

    def _account(self, seen: dict[str, str], outcome: str, error: ServiceError | None, took: float) -> None:
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


@lru_cache(256)  # of the types that somebody here subscribed to
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


class _SweptJustNow(Exception):
    """There were many sweeps within the last seconds: one more would find nothing."""


class _SweepBudget:
    """Bounds sweeps, since anybody who reaches the door may ask for one: `BURST` at once, then one every `EVERY` s."""

    BURST = 20
    EVERY = 3.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = float(self.BURST)
        self._at = clock.now()

    def take(self) -> None:
        """Raises _SweptJustNow."""
        now = self._clock.now()
        gained = (now - self._at).total_seconds() / self.EVERY
        self._left, self._at = min(float(self.BURST), self._left + gained), now
        if self._left < 1:
            raise _SweptJustNow
        self._left -= 1


async def _nothing(_: Payload, __: InboxRecord) -> None:
    """A domain without a sweep of its own."""


async def _read(request: Request) -> Any:
    """The CloudEvent of a request (binary or structured), its data as bytes; raises INVALID_ARGUMENT."""
    from cloudevents.exceptions import GenericException  # only where the events role runs
    from cloudevents.http import from_http

    if request.method != "POST" or request.scope["path"] != "/":
        raise invalid("CloudEvents are taken by POST at /.", reason="EVENT_EXPECTED")
    body = await _body(request)
    lines = request.scope["headers"]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in lines}
    if len(headers) != len(lines) and _has_two_of_one([name for name, _ in lines]):
        raise _malformed()
    try:
        event = from_http(headers, body, data_unmarshaller=_as_bytes)
    except (GenericException, ValueError, TypeError, KeyError, RecursionError):
        raise _malformed() from None
    if not all(_text(event, name) for name in ("id", "source", "type")):  # the library takes any JSON there
        raise _malformed()
    return event


def _has_two_of_one(names: list[bytes]) -> bool:
    """Whether an attribute, which has one value, came twice; of other headers nothing is read here."""
    single = [name for name in names if name == b"content-type" or name.startswith(b"ce-")]
    return len(single) != len(set(single))


def _malformed() -> ServiceError:
    return invalid("This is no CloudEvent 1.0.", reason="EVENT_MALFORMED")


def _text(event: Any, name: str) -> str | None:
    """An attribute, unless it is absent or no string."""
    value = event.get(name)
    return value if isinstance(value, str) else None


def _as_bytes(data: bytes | str | None) -> bytes:
    # The library hands binary mode's body over as it is, and structured mode's data as JSON text.
    return data.encode() if isinstance(data, str) else data or b""


async def _body(request: Request) -> bytes:
    declared = request.headers.get("content-length")
    length = declared or "0"
    if not length.isdigit() or int(length) > MAX_EVENT_BYTES:
        raise _TOO_LARGE
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > MAX_EVENT_BYTES:
            raise _TOO_LARGE
    if declared and len(chunks) != int(
        length
    ):  # servers other than ours lose it (see events.http_server.HttpProtocol)
        raise invalid("The body is not as long as Content-Length says.", reason="EVENT_INCOMPLETE")
    return bytes(chunks)


def _decode(payload: type[Payload], data: bytes | None) -> Payload:
    try:
        return msgspec.json.decode(data or b"{}", type=payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ServiceError(
            Code.FAILED_PRECONDITION, "EVENT_DATA_INVALID", f"The data is not valid: {error}"
        ) from None


def _time(sent: Any) -> datetime:
    try:
        time = datetime.fromisoformat(str(sent))
    except ValueError:
        return datetime.now(UTC)
    return time if time.tzinfo else datetime.now(UTC)  # without an offset it is no time of CloudEvents


_STATUS = {Code.INVALID_ARGUMENT: 400, Code.PERMISSION_DENIED: 403, Code.INTERNAL: 500}


def _answer(outcome: str, error: ServiceError | None) -> Response:
    from starlette.responses import Response  # only where the events role runs

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
