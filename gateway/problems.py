"""Errors as RFC 9457 problem details: what leaves the platform when something did not work.

`type` is a relative URI made of the stable reason; `title` is the same for every occurrence; `detail` is the message
of this one. Nothing internal gets in here: a ServiceError's message is written for callers, and whatever is no
ServiceError becomes INTERNAL with a correlation id to ask about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

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
# Where HTTP can say it better than the code alone.
_STATUS_OF_REASON = {
    "IDEMPOTENCY_KEY_REUSED": 422,  # as the Idempotency-Key draft has it
    "TOO_MANY_ADDRESSES": 409,  # a full address book does not empty itself by waiting
}
TOO_LATE = ServiceError(
    Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "The platform did not answer in time.", retry_after=1.0
)
INTERNAL = ServiceError(
    Code.INTERNAL, "INTERNAL", "Something went wrong. Ask about it with the correlation id."
)


class HttpError(ServiceError):
    """A refusal that only HTTP knows: it brings its own status and headers."""

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
    """The HTTP status; `conditional`: the request carried If-Match, so a lost version is 412."""
    if isinstance(error, HttpError):
        return error.status
    if conditional and error.reason == "VERSION_MISMATCH":
        return 412
    return _STATUS_OF_REASON.get(error.reason, STATUS[error.code])


def problem(error: ServiceError, conditional: bool = False) -> Response:
    """The whole answer: body, status, and the headers that the status calls for."""
    if error.code is Code.INTERNAL:
        error = INTERNAL
    status, reason = status_of(error, conditional), reason_of(error)
    content = document(status, error, reason)
    headers = {"cache-control": "no-store", **_headers(status, error, reason)}
    return Response(msgspec.json.encode(content), status, headers, CONTENT_TYPE)


def reason_of(error: ServiceError) -> str:
    """The reason to show: the code where a peer gave none."""
    return error.code.value if error.reason in ("", "UNKNOWN") else error.reason


def document(status: int, error: ServiceError, reason: str) -> dict[str, Any]:
    """The members of the problem document."""
    return {
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
