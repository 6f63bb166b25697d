"""The one place where exceptions become problem documents: ours, pydantic's, FastAPI's and Starlette's."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NoReturn

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from functions.runtime.errors import ServiceError, invalid, not_found
from functions.runtime.formats import IDEMPOTENCY_KEY
from gateway.middleware.request_context import RequestContext
from gateway.models.users import EMAIL
from gateway.problems import DEADLINE_EXCEEDED, INTERNAL, HttpError, problem, reason_of

log = logging.getLogger("shop.gateway")

MAX_VIOLATIONS = 20
_TEXTS = {
    "extra_forbidden": "is not a known field",
    "missing": "is required",
    "int_type": "must be an integer",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
}
# Patterns with a readable message; the message of any other pattern quotes the pattern.
_FORMS = {
    EMAIL: "must be an e-mail address like name@example.com",
    IDEMPOTENCY_KEY: "must be 1 to 255 visible ASCII characters",
}
_ID = re.compile(r"\^([a-z]{3}_)\[0-9a-f\]\{32\}\$")


class ErrorMiddleware:
    """Answers every exception with a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and send a problem document for an exception that it raises."""
        request_context: RequestContext | None = scope.get("request_context")
        if request_context is None:
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
            return
        except ServiceError as raised:
            error = raised
        except TimeoutError:
            error = DEADLINE_EXCEEDED
        except ClientDisconnect:
            request_context.reason = "CLIENT_GONE"
            return
        except asyncio.CancelledError:
            request_context.reason = "CANCELLED"
            raise
        except Exception:
            log.exception("request_crashed", extra={"route": request_context.route})
            error = INTERNAL
        request_context.reason = reason_of(error)
        if request_context.status:
            raise RuntimeError("the response had begun")  # the server closes the connection
        await problem(error, b"if-match" in request_context.headers)(scope, receive, send)


async def on_validation(_: Request, error: Exception) -> NoReturn:
    """Raise the violations that pydantic found as a ServiceError."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    raise translate(error.errors()) from None


async def on_http(request: Request, error: Exception) -> NoReturn:
    """Raise an error of Starlette, such as an unknown route or method, as a ServiceError."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    if error.status_code == HTTPStatus.NOT_FOUND:
        raise not_found("This path is", "ROUTE_NOT_FOUND") from None
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allow = ", ".join(sorted(allowed_methods(request)))
        headers = {"allow": allow}
        raise HttpError(405, "METHOD_NOT_ALLOWED", f"Only {allow} here.", headers=headers) from None
    raise HttpError(error.status_code, "BAD_REQUEST", "The request cannot be processed.") from None


def allowed_methods(request: Request) -> set[str]:
    """Return the methods of the first path that matches; later ones, such as `/{id}` for `/replay`, do not count."""
    scope = {**request.scope, "method": "?"}
    matching = [route for route in request.app.router.routes if route.matches(scope)[0] is not Match.NONE]
    first = [route for route in matching if route.path == matching[0].path]
    allowed: set[str] = set().union(*(route.methods or () for route in first))
    return allowed | {"HEAD"} if "GET" in allowed else allowed


def translate(errors: Sequence[Any]) -> ServiceError:
    """Return violations as INVALID_ARGUMENT, and a malformed id in the path as NOT_FOUND."""
    for error in errors:
        if error["loc"][0] == "path":
            return _unknown(str(error["loc"][1]))
    violations = [(field_path(error["loc"]), _text(error)) for error in errors[:MAX_VIOLATIONS]]
    return invalid("The request is not valid.", *violations)


def _unknown(parameter: str) -> ServiceError:
    what = parameter.removesuffix("_id").replace("_", " ")
    return not_found(what.capitalize(), f"{what.upper().replace(' ', '_')}_NOT_FOUND")


def field_path(location: Sequence[str | int]) -> str:
    """Return `("body", "lines", 0, "quantity")` as `lines[0].quantity`."""
    source, *parts = location
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".") or str(source)


def _form(pattern: str) -> str:
    if known := _ID.fullmatch(pattern):
        return f"must be an id: {known[1]} and 32 hexadecimal digits"
    return _FORMS.get(pattern, f"must match {pattern}")


def _text(error: Any) -> str:
    if error["type"] in _TEXTS:
        return _TEXTS[error["type"]]
    if error["type"] == "string_pattern_mismatch":
        return _form(error["ctx"]["pattern"])
    return (
        str(error["msg"])
        .removeprefix("Value error, ")
        .replace("Input should ", "must ")
        .replace("String should ", "must ")
    )
