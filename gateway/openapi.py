"""The OpenAPI document: FastAPI's, completed with the access, errors and headers that the routes state.

Examples are composed of the fields' examples. Schemas have the forms that client generators read
(docs/decisions/0021-an-openapi-document-that-generators-read.md).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from gateway.models.common import Problem
from gateway.problems import CONTENT_TYPE
from gateway.routing import Access, ApiRoute

TITLE, VERSION = "Shop", "1.0.0"
LICENSE = {"name": "MIT", "identifier": "MIT"}
CONTACT = {"name": "The Shop Platform authors"}
SERVERS = [{"url": "/", "description": "The gateway that serves this document."}]
DESCRIPTION = """\
The public API of the shop. JSON in and out, snake_case. Money is an integer of minor units with an ISO 4217 code, times
are RFC 3339 in UTC, ids are opaque strings.

**Signing in**: `POST /v1/sessions`, then `Authorization: Bearer <access_token>`.
**Errors** are problem details (RFC 9457): branch on `reason`, quote `correlation_id`.
**Lists** page by `cursor`; `next_cursor` is null at the end.
**Editing safely**: send the `ETag` of what was read as `If-Match`; 412 means that it has changed since.
**Limits**: `RateLimit` and `RateLimit-Policy` on every answer say how many requests are left; 429 when none is.
**Repeating safely**: send an `Idempotency-Key` when placing an order, refunding or adjusting stock.
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
    400: ["INVALID_ARGUMENT"],
    414: ["QUERY_TOO_LARGE"],
    429: ["RATE_LIMITED"],
    431: ["HEADERS_TOO_LARGE"],
    500: ["INTERNAL"],
    503: ["SERVICE_UNAVAILABLE", "OVERLOADED", "TOO_MANY_AT_ONCE"],
    504: ["DEADLINE_EXCEEDED"],
}
"""The reasons that every route can answer, by status."""
_WITH_BODY = {
    400: ["INVALID_ARGUMENT", "MALFORMED_JSON"],
    408: ["BODY_TOO_SLOW"],
    413: ["BODY_TOO_LARGE"],
    415: ["UNSUPPORTED_MEDIA_TYPE"],
}
_WITH_TOKEN = {401: ["TOKEN_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED"], 403: ["PERMISSION_DENIED"]}
_SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    Access.PUBLIC: [],
    Access.OPTIONAL: [{}, {"bearer": []}],
    Access.SIGNED_IN: [{"bearer": []}],
    Access.ADMIN: [{"bearer": []}],
}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "Known ETags; the response is 304 if one is current.",
    "schema": {"type": "string"},
    "example": '"1"',
}
_TITLES = {
    400: "The request is not valid",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    408: "The body arrived too slowly",
    409: "Not allowed in the current state",
    412: "Changed since it was read",
    413: "The body is too large",
    414: "Too many parameters",
    415: "The body is not JSON",
    422: "The idempotency key was used for another request",
    429: "Too many requests",
    431: "The headers are too large",
    500: "Internal error",
    503: "Temporarily unavailable",
    504: "Deadline exceeded",
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
_TEXT = {"type": "string"}
_SECONDS = {"type": "integer", "format": "int32", "minimum": 1, "maximum": 2**31 - 1}
_HEADERS = {
    "Accept": ("The media type that a body must have.", "application/json"),
    "Cache-Control": ("Personal data are not cached; other data are revalidated at each use.", "no-store"),
    "Content-Disposition": ("The name of the file to save the body as.", 'attachment; filename="shop-export.json"'),
    "Content-Security-Policy": (
        "Prevents browsers from rendering the response as a page.",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    "Set-Cookie": (
        "The `device_token`, as a cookie for browsers: it identifies a known device at the next login.",
        "__Secure-shop_device=dt_4Zx0p9Qm2w; HttpOnly; Path=/v1/sessions; SameSite=strict; Secure",
    ),
    "ETag": ("The version, for If-Match and If-None-Match.", '"1"'),
    "RateLimit": (
        "The remaining requests of the closest limit (`r`), and the seconds until all are available again (`t`).",
        '"default";r=1999;t=1',
    ),
    "RateLimit-Policy": (
        "The limit: the number of requests (`q`) in a number of seconds (`w`).",
        '"default";q=2000;w=2',
    ),
    "Referrer-Policy": ("Prevents browsers from sending this URL to other sites.", "no-referrer"),
    "Retry-After": ("Seconds to wait before a retry.", 1),
    "Strict-Transport-Security": (
        "In production: browsers must use HTTPS for this host.",
        "max-age=31536000; includeSubDomains",
    ),
    "WWW-Authenticate": ("The required authentication scheme.", 'Bearer realm="shop", error="invalid_token"'),
    "X-Accel-Buffering": ("Tells proxies not to buffer events.", "no"),
    "X-Content-Type-Options": ("Prevents browsers from guessing the media type.", "nosniff"),
    "X-Correlation-Id": (
        "Identifies this request in logs and traces; quote it in support requests.",
        "8f14e45fceea167a5a36dedd4bea2543",
    ),
}
HEADERS = {
    name: {"description": description, "schema": _TEXT if isinstance(example, str) else _SECONDS, "example": example}
    for name, (description, example) in _HEADERS.items()
}
"""Response headers by name; an operation refers to them."""
_EVERYWHERE = (
    "Cache-Control",
    "Content-Security-Policy",
    "RateLimit",
    "RateLimit-Policy",
    "Referrer-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Correlation-Id",
)
_ON_STATUS = {
    401: ("WWW-Authenticate",),
    409: ("Retry-After",),
    415: ("Accept",),
    429: ("Retry-After",),
    503: ("Retry-After",),
    504: ("Retry-After",),
}


@cache
def document(app: FastAPI) -> dict[str, Any]:
    """Return the document of the app's routes."""
    routes = [route for route in app.routes if isinstance(route, ApiRoute)]
    schema = get_openapi(
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        contact=CONTACT,
        servers=SERVERS,
        routes=[_documented(route) for route in routes],
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    )
    schema["info"]["license"] = LICENSE
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _add_problem(schemas)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["headers"] = HEADERS
    components["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "The access_token of a session.",
        }
    }
    _simplify(schema["paths"])
    _simplify(schemas)
    for name, enumeration in schemas.items():
        for field in enumeration.get("properties", {}).values():
            field.pop("default", None)  # openapi-typescript treats a field with a default as required
        if "enum" in enumeration:
            enumeration["x-enum-varnames"] = [_constant(name, value) for value in enumeration["enum"]]
    shared: dict[str, dict[str, Any]] = {}
    components["responses"] = shared
    for route in routes:
        _finish(schema["paths"][route.path][route.method.lower()], route, schemas, shared)
    return schema


def _documented(route: ApiRoute) -> APIRoute:
    """Return a copy of the route with its response model, for the document only.

    FastAPI builds a validator of the model, which the served route does not need.
    """
    status, options = route.status_code or 200, route.options
    response: dict[str, Any] = {"description": "Done." if status == 204 else "Success."}
    responses: dict[int | str, dict[str, Any]] = {status: response}
    if event := options.get("event_example"):
        schema = {"type": "string", "description": "Server-sent events; the `data` of each is an Order in JSON."}
        response["content"] = {"text/event-stream": {"schema": schema, "example": event}}
        responses[204] = {"description": "The client already has the final state."}
    elif route.result is not None:
        response["model"] = route.result
        response["description"] = (route.result.__doc__ or "Success.").strip().splitlines()[0]
    if _is_conditional(route):
        responses[304] = {"description": "The client's version is current."}
    extra: dict[str, Any] = {"security": _SECURITY[route.access]}
    if body := options.get("body_example"):
        media = {"schema": {"type": "object", "examples": [body]}}
        extra["requestBody"] = {"required": True, "content": {"application/json": media}}
    return APIRoute(
        route.path,
        route.call,
        methods=[route.method],
        tags=route.tags,
        operation_id=camel_case(route.unique_id),
        deprecated=route.deprecated,
        status_code=status,
        response_model=None,
        response_class=Response,
        responses=responses,
        openapi_extra=extra,
    )


def _is_conditional(route: ApiRoute) -> bool:
    return route.method == "GET" and bool(route.options.get("etag"))


def _add_problem(schemas: dict[str, Any]) -> None:
    problem = TypeAdapter(Problem).json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem


def camel_case(name: str) -> str:
    """Return `place_order` as `placeOrder`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _constant(enumeration: str, value: str) -> str:
    """Return the name of an enumeration's value as protobuf writes it, such as ORDER_STATUS_PLACED.

    It contains the enumeration's name, because in Go all constants of a package share one namespace.
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enumeration).upper() + "_" + value.upper()


def _simplify(part: Any) -> None:
    """Rewrite all schemas below `part` in the forms that all client generators understand.

    A nullable value has null in its `type`, an integer has the format that its bounds allow, and the titles that
    pydantic derives from names are removed.
    """
    if isinstance(part, list):
        for item in part:
            _simplify(item)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key not in ("example", "examples", "default", "enum", "const"):
                _simplify(value)
        _merge_null(part)
        if isinstance(part.get("title"), str):
            del part["title"]
        kind = part.get("type")
        if kind == "integer" or (isinstance(kind, list) and "integer" in kind):
            for bound in {"minimum", "maximum"} & part.keys():
                part[bound] = int(part[bound])  # FastAPI reads them as floats
            part["format"] = integer_format(part)


def _merge_null(schema: dict[str, Any]) -> None:
    choices = schema.get("anyOf", ())
    if len(choices) == 2 and choices[1] == {"type": "null"} and isinstance(choices[0].get("type"), str):
        choice = choices[0]
        del schema["anyOf"]
        for key, value in choice.items():
            schema.setdefault(key, value)
        schema["type"] = [choice["type"], "null"]


def integer_format(schema: dict[str, Any]) -> str:
    """Return int32 when the bounds of the schema fit into 32 bits, else int64."""
    least, most = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63)
    return "int32" if least >= -(2**31) and most < 2**31 else "int64"


def _finish(
    operation: dict[str, Any], route: ApiRoute, schemas: dict[str, Any], shared: dict[str, dict[str, Any]]
) -> None:
    summary, _, rest = operation["description"].partition("\n")
    operation["summary"] = summary.rstrip(".")
    operation["description"] = rest.strip() or summary
    parameters = operation.setdefault("parameters", [])
    for parameter in parameters:
        parameter["schema"] = _present(parameter["schema"])
        if parameter["in"] == "header":
            _simplify_header(parameter)
    if _is_conditional(route):
        parameters.append(_IF_NONE_MATCH)
    if not parameters:
        del operation["parameters"]
    responses = operation["responses"]
    responses.pop("422", None)
    for status, response in responses.items():
        own = () if status == "304" else route.options.get("response_headers", ())
        tag = ["ETag"] if route.options.get("etag") and status != "204" else []
        response["headers"] = _headers(int(status)) | {name: header(name) for name in (*tag, *own)}
    contents = [response.get("content", {}) for response in responses.values()]
    for content in [*contents, operation.get("requestBody", {}).get("content", {})]:
        media = content.get("application/json")
        if media is not None:
            media["example"] = example(media["schema"], schemas)
    if location := route.options.get("location"):
        created = responses[str(route.status_code)]
        where = location.format_map(created["content"]["application/json"]["example"])
        created["headers"]["Location"] = {"description": "URL of the new resource.", "schema": _TEXT, "example": where}
    for status, reasons in sorted(_problems(operation, route).items()):
        name = "-".join([str(status), *reasons])  # such as 429-RATE_LIMITED
        shared.setdefault(name, _problem_response(status, reasons))
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}


def header(name: str) -> dict[str, str]:
    """Return a reference to a response header of HEADERS."""
    return {"$ref": f"#/components/headers/{name}"}


def _headers(status: int) -> dict[str, Any]:
    return {name: header(name) for name in (*_EVERYWHERE, *_ON_STATUS.get(status, ()))}


def _present(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter without null, which a query cannot express."""
    found = dict(schema)
    if "anyOf" in found:
        found |= next(choice for choice in found.pop("anyOf") if choice != {"type": "null"})
    if isinstance(found.get("type"), list):
        (found["type"],) = (kind for kind in found["type"] if kind != "null")
    return found


def _simplify_header(parameter: dict[str, Any]) -> None:
    """Move the example of a header parameter out of its schema, and drop the schema's description and default."""
    schema = parameter["schema"]
    parameter["example"] = schema.pop("examples")[0]
    for key in ("description", "default"):
        schema.pop(key, None)


def _problems(operation: dict[str, Any], route: ApiRoute) -> dict[int, list[str]]:
    """Return the reasons of the route's error responses, by HTTP status.

    The example of a response shows its first reason. For 400 that is one that every route has.
    """
    found: dict[int, list[str]] = {}
    for status, reason in route.options.get("errors", ()):
        found.setdefault(status, []).append(reason)
    if any(parameter["name"] == "If-Match" for parameter in operation.get("parameters", ())):
        found[412] = ["VERSION_MISMATCH"]
    if route.access is Access.SIGNED_IN:
        found.setdefault(404, ["USER_NOT_FOUND"])  # tokens of deleted accounts are valid for up to a minute
    body = _WITH_BODY if "requestBody" in operation else {}
    token = _WITH_TOKEN if route.access is not Access.PUBLIC else {}
    for status, names in (_ALWAYS | body | token).items():
        own = found.get(status, [])
        found[status] = [*names, *own] if status == 400 else [*own, *names]
    return found


def _problem_response(status: int, reasons: list[str]) -> dict[str, Any]:
    shown = {
        "type": "/problems/" + reasons[0].lower().replace("_", "-"),
        "title": reasons[0].replace("_", " ").capitalize(),
        "status": status,
        "detail": f"{_TITLES[status]}.",
        "code": _CODES.get(status, "INVALID_ARGUMENT"),
        "reason": reasons[0],
        "correlation_id": "8f14e45fceea167a5a36dedd4bea2543",
        "errors": [],
    }
    media = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": shown}
    description = f"{_TITLES[status]}: {', '.join(reasons)}."
    return {"description": description, "headers": _headers(status), "content": {CONTENT_TYPE: media}}


def example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """Return an example of a schema, from its own examples or from those of its parts."""
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
