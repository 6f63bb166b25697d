"""FastAPI's and Starlette's own refusals, as errors of ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NoReturn

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match

from functions.runtime.errors import ServiceError, invalid, not_found
from gateway.models.users import EMAIL
from gateway.problems import HttpError

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
# Patterns are public, in the OpenAPI document; these are the ones that people should not have to read.
_FORMS = {
    EMAIL: "must be an e-mail address like name@example.com",
}
_ID = re.compile(r"\^([a-z]{3}_)\[0-9a-f\]\{32\}\$")


async def on_validation(_: Request, error: Exception) -> NoReturn:
    """Exception handler for what pydantic refused."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    raise translate(error.errors()) from None


async def on_http(request: Request, error: Exception) -> NoReturn:
    """Exception handler for unknown routes, methods, and whatever else Starlette refuses."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    if error.status_code == HTTPStatus.NOT_FOUND:
        raise not_found("This path is", "ROUTE_NOT_FOUND") from None
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allow = ", ".join(sorted(allowed_methods(request)))
        headers = {"allow": allow}
        raise HttpError(405, "METHOD_NOT_ALLOWED", f"Only {allow} here.", headers=headers) from None
    raise HttpError(error.status_code, "BAD_REQUEST", "The request cannot be processed.") from None


def allowed_methods(request: Request) -> set[str]:
    """All methods of the path that matches first: `/replay` is one, though it could be somebody's `/{id}`."""
    scope = {**request.scope, "method": "?"}
    matching = [route for route in request.app.router.routes if route.matches(scope)[0] is not Match.NONE]
    first = [route for route in matching if route.path == matching[0].path]
    allowed: set[str] = set().union(*(route.methods or () for route in first))
    return allowed | {"HEAD"} if "GET" in allowed else allowed


def translate(errors: Sequence[Any]) -> ServiceError:
    """Violations as INVALID_ARGUMENT; an id in the path that cannot be one is simply not found."""
    for error in errors:
        if error["loc"][0] == "path":
            return _unknown(str(error["loc"][1]))
    violations = [(field_path(error["loc"]), _text(error)) for error in errors[:MAX_VIOLATIONS]]
    return invalid("The request is not valid.", *violations)


def _unknown(parameter: str) -> ServiceError:
    what = parameter.removesuffix("_id").replace("_", " ")
    return not_found(what.capitalize(), f"{what.upper().replace(' ', '_')}_NOT_FOUND")


def field_path(location: Sequence[str | int]) -> str:
    """`("body", "lines", 0, "quantity")` as `lines[0].quantity`."""
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
