"""What a route says about itself: who may call, what it answers, what can go wrong.

Enforced by `gateway.routing.ApiRoute`, documented by `gateway.openapi`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from starlette.responses import Response

from functions.runtime.formats import IDEMPOTENCY_KEY
from gateway.routing import ACCESS, BODY, COST, SECONDS, Access

_SECURITY: Mapping[Access, list[dict[str, list[str]]]] = {
    "open": [],
    "anyone": [{}, {"bearer": []}],
    "signed-in": [{"bearer": []}],
    "admin": [{"bearer": []}],
}
ANSWER, PROBLEMS = "x-answer", "x-problems"
LOCATED = "x-located"
Tagging = Literal["none", "sent", "read", "write"]
"""none: no ETag. sent: the response has one. read: and If-None-Match is honoured. write: and If-Match is."""
_HEADERS: dict[str, dict[str, Any]] = {
    "if-none-match": {
        "name": "If-None-Match",
        "description": "ETags already known: 304 when one of them still holds.",
        "schema": {"type": "string"},
        "example": '"1"',
    },
    "if-match": {
        "name": "If-Match",
        "description": "ETags of what was read: 412 when none of them holds any more.",
        "schema": {"type": "string"},
        "example": '"1"',
    },
    "idempotency-key": {
        "name": "Idempotency-Key",
        "description": "Makes repeating safe: for 24 hours the same key and body give the first answer.",
        "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY},
        "example": "checkout-7f9c2ba4",
    },
    "stripe-signature": {
        "name": "Stripe-Signature",
        "description": "Stripe's signature of the body, not older than 5 minutes.",
        "schema": {"type": "string"},
        "example": "t=1893499200,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd",
    },
    "x-api-key": {
        "name": "X-Api-Key",
        "description": "The secret that the caller was given.",
        "schema": {"type": "string"},
        "example": "a-long-random-secret",
    },
    "last-event-id": {
        "name": "Last-Event-ID",
        "description": "Sent by an EventSource that connects again.",
        "schema": {"type": "string"},
        "example": "3",
    },
}
_PRECONDITIONS: dict[Tagging, tuple[str, ...]] = {
    "none": (),
    "sent": (),
    "read": ("if-none-match",),
    "write": ("if-match",),
}


def header(name: str) -> dict[str, str]:
    """Return a reference to a response header that `gateway.openapi` describes."""
    return {"$ref": f"#/components/headers/{name}"}


def declare(
    access: Access,
    status: int = 200,
    answer: Any = None,
    *,
    problems: Mapping[int, str] | None = None,
    tagged: Tagging = "none",
    headers: tuple[str, ...] = (),
    located: bool | str = False,
    sends: tuple[str, ...] = (),
    seconds: float | None = None,
    cost: int = 1,
    streamed: str = "",
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Keyword arguments for a router's decorator.

    `answer` is the TypedDict of the body; `problems` gives reasons by status, beyond what every route can answer;
    `tagged` says whether the answer has an ETag and which precondition is honoured; `headers` names further request
    headers, `sends` further response headers; `located` says that the response has a Location, by default this path
    and the answer's id; `seconds` is a deadline other than DEADLINE_SECONDS; `cost` is how many ordinary requests it
    counts as; `streamed` is an example of a stream of events; `body` an example of a JSON body that the endpoint takes
    as it came, by `await request.body()`.
    """
    responses = {status: _answered(status, answer, tagged, sends)}
    if streamed:
        schema = {
            "type": "string",
            "description": "Server-sent events; the `data` of each is an Order in JSON.",
        }
        media = {"schema": schema, "example": streamed}
        responses[status]["content"] = {"text/event-stream": media}
        responses[204] = {
            "description": "Nothing more will come; Last-Event-ID had it all.",
            "headers": {name: header(name) for name in sends},
        }
    if tagged == "read":
        responses[304] = {
            "description": "What If-None-Match names still holds.",
            "headers": {"ETag": header("ETag")},
        }
    known = dict(problems or {}) | ({412: "VERSION_MISMATCH"} if tagged == "write" else {})
    # Not as a `model` of the responses: FastAPI would make a validator of it, at each start and only for the document.
    own = {ACCESS: access, ANSWER: answer, PROBLEMS: known, SECONDS: seconds, COST: cost, LOCATED: located}
    return {
        "status_code": status,
        "response_model": None,
        "response_class": Response,
        "responses": responses,
        "openapi_extra": _extra(access, (*headers, *_PRECONDITIONS[tagged]), body) | own,
    }


def _extra(access: Access, headers: tuple[str, ...], body: dict[str, Any] | None) -> dict[str, Any]:
    """What FastAPI does not know of the operation: security, headers, a body that it does not parse."""
    extra: dict[str, Any] = {"security": _SECURITY[access]}
    if headers:
        extra["parameters"] = [{"in": "header", "required": False, **_HEADERS[name]} for name in headers]
    if body is not None:
        media = {"schema": {"type": "object", "examples": [body]}}
        extra[BODY] = {"required": True, "content": {"application/json": media}}
    return extra


def _answered(status: int, answer: Any, tagged: Tagging, sends: tuple[str, ...]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": "Done." if status == 204 else "As asked for."}
    if answer is not None:
        described["description"] = (answer.__doc__ or "As asked for.").strip().splitlines()[0]
    names = [*(["ETag"] if tagged != "none" and answer is not None else []), *sends]
    described["headers"] = {name: header(name) for name in names}
    return described
