"""Errors as RFC 9457 problem details.

`type` is a relative URI made of the stable reason. `title` is the same for every occurrence of a reason; `detail` is
the message of one occurrence. Nothing internal is shown: the message of a ServiceError is written for callers, and
every other exception becomes INTERNAL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from functions.runtime.errors import Code, ServiceError, Violation
from observability import context

CONTENT_TYPE = "application/problem+json"

STATUS = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.FAILED_PRECONDITION: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.ABORTED: 409,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
    Code.INTERNAL: 500,
}
# Reasons for which HTTP has a more precise status than the status of their code.
_STATUS_OF_REASON = {
    "IDEMPOTENCY_KEY_REUSED": 422,  # draft-ietf-httpapi-idempotency-key-header
    "TOO_MANY_ADDRESSES": 409,  # waiting does not help
}
DEADLINE_EXCEEDED = ServiceError(
    Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "The platform did not answer in time.", retry_after=1.0
)
INTERNAL = ServiceError(Code.INTERNAL, "INTERNAL", "Something went wrong. Ask about it with the correlation id.")


class HttpError(ServiceError):
    """An error of HTTP itself, with its own status and headers."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        code: Code = Code.INVALID_ARGUMENT,
        violations: list[Violation] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, reason, message, violations or (), retry_after)
        self.status = status
        self.headers = dict(headers or {})


def status_of(error: ServiceError, conditional: bool = False) -> int:
    """Return the HTTP status. `conditional`: the request has If-Match, so that VERSION_MISMATCH is 412."""
    if isinstance(error, HttpError):
        return error.status
    if conditional and error.reason == "VERSION_MISMATCH":
        return 412
    return _STATUS_OF_REASON.get(error.reason, STATUS[error.code])


def problem(error: ServiceError, conditional: bool = False) -> Response:
    """Return the error response with the headers that its status requires."""
    if error.code is Code.INTERNAL:
        error = INTERNAL
    status, reason = status_of(error, conditional), reason_of(error)
    content = {
        "type": "/problems/" + reason.lower().replace("_", "-"),
        "title": reason.replace("_", " ").capitalize(),
        "status": status,
        "detail": error.message,
        "code": error.code.value,
        "reason": reason,
        "correlation_id": context.current().correlation_id,
        "errors": [{"field": v.field, "message": v.message} for v in error.violations],
        **{name: {"amount": it.amount, "currency": it.currency} for name, it in error.amounts.items()},
    }
    headers = {"cache-control": "no-store", **_headers(status, error, reason)}
    return Response(msgspec.json.encode(content), status, headers, CONTENT_TYPE)


def reason_of(error: ServiceError) -> str:
    """Return the reason of an error, or its code if a service stated no reason."""
    return error.code.value if error.reason in ("", "UNKNOWN") else error.reason


_CHALLENGES = {
    "TOKEN_INVALID": ', error="invalid_token"',
    "TOKEN_EXPIRED": ', error="invalid_token"',
    "REAUTHENTICATION_REQUIRED": ', error="insufficient_user_authentication", max_age="300"',  # RFC 9470
}


def _headers(status: int, error: ServiceError, reason: str) -> dict[str, str]:
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if status == 401:
        headers["www-authenticate"] = f'Bearer realm="shop"{_CHALLENGES.get(reason, "")}'
    if status in (429, 503):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after or 1)))
    elif error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    return headers
