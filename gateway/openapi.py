"""The OpenAPI document: FastAPI's, completed with what the declarations know (problems, headers, security) and with
examples made of the fields' examples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from gateway.declare import ANSWER, PROBLEMS
from gateway.models.common import Problem
from gateway.problems import CONTENT_TYPE
from gateway.route import ACCESS, SECONDS, EdgeRoute

TITLE, VERSION = "Shop", "1.0.0"
DESCRIPTION = """\
The public API of the shop. JSON in and out, snake_case. Money is an integer of minor units with an ISO 4217 code, times
are RFC 3339 in UTC, ids are opaque strings.

**Signing in**: `POST /v1/sessions`, then `Authorization: Bearer <access_token>`.
**Errors** are problem details (RFC 9457): branch on `reason`, quote `correlation_id`.
**Lists** page by `cursor`; `next_cursor` is null at the end.
**Editing safely**: send the `ETag` of what was read as `If-Match`; 412 means that it has changed since.
**Limits**: `RateLimit` and `RateLimit-Policy` on every answer say how many requests are left; 429 when none is.
**Repeating safely**: send an `Idempotency-Key` when placing an order or refunding.
Unknown fields and query parameters, and parameters that are given twice, are refused; answers may gain fields.
"""
_TAGS = {
    "sessions": "Logging in and out.",
    "users": "One's own account.",
    "products": "The catalogue and its stock.",
    "orders": "Placing and following orders.",
    "payments": "Payments and refunds.",
    "notifications": "What people are told.",
    "webhooks": "What providers report, each known by its signature or secret.",
    "admin": "For administrators.",
    "keys": "Verifying access tokens.",
}
_ALWAYS = {
    414: "QUERY_TOO_LARGE",
    429: "RATE_LIMITED",
    431: "HEADERS_TOO_LARGE",
    500: "INTERNAL",
    503: "SERVICE_UNAVAILABLE, OVERLOADED",
    504: "DEADLINE_EXCEEDED",
}
_TITLES = {
    400: "The request is not valid",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    408: "The body came too slowly",
    409: "Not in the present state",
    412: "It has changed since it was read",
    413: "The body is too large",
    414: "Too many parameters",
    415: "The body is not JSON",
    422: "The key was used for something else",
    429: "Too many requests",
    431: "The headers are too large",
    500: "A fault of the platform",
    503: "Not available just now",
    504: "Not in time",
}
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "FAILED_PRECONDITION",
    412: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    408: "DEADLINE_EXCEEDED",
    504: "DEADLINE_EXCEEDED",
}
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}, "example": 1}}


def document(app: FastAPI) -> dict[str, Any]:
    """The finished document of the app's routes."""
    tags = [{"name": name, "description": text} for name, text in _TAGS.items()]
    routes = [_documented(route) if isinstance(route, EdgeRoute) else route for route in app.routes]
    schema = get_openapi(title=TITLE, version=VERSION, description=DESCRIPTION, routes=routes, tags=tags)
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _add_problem(schemas)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "The access_token of a session.",
        }
    }
    for operations in schema["paths"].values():
        for operation in operations.values():
            _finish(operation, schemas)
    return schema


def _documented(route: EdgeRoute) -> APIRoute:
    """The route as FastAPI describes it: with the model of its answer, which serving does without."""
    extra = dict(route.openapi_extra or {})
    answer, status, responses = extra.pop(ANSWER), route.status_code or 200, dict(route.responses)
    if answer is not None:
        responses[status] = {**responses[status], "model": answer}
    return APIRoute(
        route.path,
        route.endpoint,
        methods=route.methods,
        tags=route.tags,
        operation_id=route.unique_id,
        status_code=status,
        response_model=None,
        response_class=route.response_class,
        responses=responses,
        openapi_extra=extra,
    )


def _add_problem(schemas: dict[str, Any]) -> None:
    problem = TypeAdapter(Problem).json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem


def _finish(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    summary, _, rest = operation["description"].partition("\n")
    operation["summary"] = summary.rstrip(".")
    operation["description"] = rest.strip() or summary
    access, special = operation.pop(ACCESS), operation.pop(PROBLEMS)
    operation.pop(SECONDS, None)
    responses = operation["responses"]
    responses.pop("422", None)
    for status, reasons in sorted(_problems(operation, access, special).items()):
        responses[str(status)] = _problem_response(status, reasons)
    contents = [response.get("content", {}) for response in responses.values()]
    for content in [*contents, operation.get("requestBody", {}).get("content", {})]:
        media = content.get("application/json")
        if media is not None:
            media["example"] = example(media["schema"], schemas)


def _problems(operation: dict[str, Any], access: str, special: dict[int, str]) -> dict[int, str]:
    known = dict(_ALWAYS)
    has_body = "requestBody" in operation
    known[400] = "INVALID_ARGUMENT, MALFORMED_JSON" if has_body else "INVALID_ARGUMENT"
    if has_body:
        known |= {408: "BODY_TOO_SLOW", 413: "BODY_TOO_LARGE", 415: "UNSUPPORTED_MEDIA_TYPE"}
    if access != "open":
        known[401] = "TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED"
        known[403] = "PERMISSION_DENIED"
    if access == "signed-in":
        known[404] = "USER_NOT_FOUND"  # the token of somebody who has gone is good for up to a minute
    return known | {int(status): reasons for status, reasons in special.items()}


def _problem_response(status: int, reasons: str) -> dict[str, Any]:
    reason = reasons.partition(",")[0]
    shown = {
        "type": "/problems/" + reason.lower().replace("_", "-"),
        "title": reason.replace("_", " ").capitalize(),
        "status": status,
        "detail": f"{_TITLES[status]}.",
        "code": _CODES.get(status, "INVALID_ARGUMENT"),
        "reason": reason,
        "correlation_id": "8f14e45fceea167a5a36dedd4bea2543",
        "errors": [],
    }
    media = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": shown}
    response = {"description": f"{_TITLES[status]}: {reasons}.", "content": {CONTENT_TYPE: media}}
    if status in (429, 503):
        response["headers"] = _RETRY
    return response


def example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A value of this schema, made of its own examples or of its parts'."""
    if "$ref" in schema:
        return example(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if schema.get("examples"):
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return example(schema[several][0], schemas)
    if schema.get("type") == "array":
        return [example(schema["items"], schemas)]
    if schema.get("type") == "object":
        return {name: example(part, schemas) for name, part in schema.get("properties", {}).items()}
    return schema.get("default")
