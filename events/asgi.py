"""ASGI helpers: read bodies, headers and queries; send responses and problem documents (RFC 9457)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
HeaderList = Sequence[tuple[bytes, bytes]]

MAX_BODY: Final = (1 << 20) - 1
"""Maximum size of a body in bytes. It is below 1 MiB, so that an accepted event and its headers stay within the limit
of event functions.
"""
_CODES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "INVALID_ARGUMENT",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
}


class Problem(Exception):
    """An error response as a problem document (RFC 9457) with the platform's code and reason."""

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        headers: HeaderList = (),
        violations: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.violations = violations
        self.status = status
        self.reason = reason
        self.headers = headers

    def body(self) -> bytes:
        """Return the problem document as JSON."""
        return msgspec.json.encode(
            {
                "type": "about:blank",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": str(self),
                "code": _CODES.get(self.status, "INTERNAL"),
                "reason": self.reason,
                "errors": [{"field": field, "message": message} for field, message in self.violations],
            }
        )


async def read_body(receive: Receive) -> bytes:
    """Read the whole body. Raises Problem: 413 over MAX_BODY, 400 when the client disconnected."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) <= MAX_BODY:
            return body
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise Problem(400, "INCOMPLETE", "the connection ended within the body")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise Problem(413, "TOO_LARGE", "1 MiB or more", ((b"connection", b"close"),))
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


async def respond(
    send: Send, status: int, body: bytes = b"", content_type: bytes = b"", headers: HeaderList = ()
) -> None:
    """Send a complete response."""
    head = list(headers)
    if status != 204:
        head.append((b"content-length", b"%d" % len(body)))
    if content_type:
        head.append((b"content-type", content_type))
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, document: object) -> None:
    """Send a JSON response."""
    await respond(send, status, msgspec.json.encode(document), b"application/json")


async def respond_problem(send: Send, problem: Problem) -> None:
    """Send a problem document."""
    await respond(send, problem.status, problem.body(), b"application/problem+json", problem.headers)


def header(scope: Scope, name: bytes) -> str:
    """Return a request header, "" if there is none. Repeated headers are joined by commas."""
    return b", ".join([value for key, value in scope["headers"] if key == name]).decode("latin-1")


def query(scope: Scope, *known: str) -> dict[str, str]:
    """Return the query's parameters. Raises Problem (400) that names unknown and repeated parameters."""
    if not scope.get("query_string"):
        return {}
    found = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    violations = [
        (name[:100], "is not a known parameter" if name not in known else "must be given once")
        for name, values in found.items()
        if name not in known or len(values) != 1
    ]
    if violations:
        knowing = f"known parameters, once each: {', '.join(known)}" if known else "no parameters are known here"
        raise Problem(400, "INVALID_QUERY", knowing, violations=violations)
    return {name: values[0] for name, values in found.items()}


def method_not_allowed(*allowed: str) -> Problem:
    """Return a 405 with its Allow header."""
    allow = ", ".join(allowed)
    return Problem(405, "METHOD_NOT_ALLOWED", f"allowed here: {allow}", ((b"allow", allow.encode()),))
