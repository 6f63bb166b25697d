"""What is served is what OpenAPI says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from functions.runtime.tests.support import FakeVerifier
from gateway.app import create_app
from gateway.settings import Settings
from gateway.tests.conftest import BOSS
from gateway.tests.dead_letters import LETTER
from gateway.tests.fakes import ADDRESS, NOTIFICATION, ORDER, PAYMENT, PRODUCT, USER, Backend, order
from proto.shop.orders.v1 import orders_pb2

_IDS = {
    "product_id": PRODUCT,
    "order_id": ORDER,
    "payment_id": PAYMENT,
    "address_id": ADDRESS,
    "notification_id": NOTIFICATION,
    "user_id": USER,
    "dead_letter_id": LETTER,
}
_QUERIES = {("/v1/admin/dead-letters", "delete"): {"all": "true"}}
DOCUMENT: dict[str, Any] = json.loads(json.dumps(create_app(Settings(), verifier=FakeVerifier()).openapi()))
# Written by the server or about the connection, and so no part of any one operation.
_TRANSPORT = {"connection", "content-length", "content-type"}
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


# Crawled once: each validator that has the document in itself would do so anew.
_REGISTRY: Registry[Any] = (
    Registry().with_resource("urn:document", Resource.from_contents(DOCUMENT, DRAFT202012)).crawl()
)


def check(content: Any, media: dict[str, Any]) -> None:
    """Raise unless `content` fits the schema."""
    schema = json.loads(json.dumps(media["schema"]).replace('"#/', '"urn:document#/'))
    checker = Draft202012Validator.FORMAT_CHECKER
    Draft202012Validator(schema, registry=_REGISTRY, format_checker=checker).validate(content)


def operation(path: str, method: str) -> dict[str, Any]:
    """Its part of the document."""
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


def response(path: str, method: str, status: int | str) -> dict[str, Any]:
    """The documented response, with its reference resolved."""
    found: dict[str, Any] = operation(path, method)["responses"][str(status)]
    if "$ref" in found:
        found = DOCUMENT["components"]["responses"][found["$ref"].rpartition("/")[2]]
    return found


def check_headers(answer: httpx.Response, path: str, method: str) -> None:
    """Raise unless all headers that were sent are documented."""
    documented = {name.lower() for name in response(path, method, answer.status_code)["headers"]}
    assert set(answer.headers) - _TRANSPORT - documented == set()


def subschemas(part: Any) -> Iterator[dict[str, Any]]:
    """All objects of the document below `part`, but for examples."""
    if isinstance(part, list):
        for item in part:
            yield from subschemas(item)
    elif isinstance(part, dict):
        yield part
        for key, value in part.items():
            if key not in ("example", "examples"):
                yield from subschemas(value)


async def send(api: httpx.AsyncClient, path: str, method: str, headers: dict[str, str]) -> httpx.Response:
    """The request that the document's own example describes."""
    body = operation(path, method).get("requestBody", {}).get("content", {}).get("application/json")
    example = body["example"] if body else None
    query = _QUERIES.get((path, method))
    return await api.request(method, path.format(**_IDS), headers=headers, params=query, json=example)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
async def test_every_route_takes_its_example_and_answers_as_documented(
    api: httpx.AsyncClient, backend: Backend, path: str, method: str
) -> None:
    backend.answers["WatchOrder"] = order(orders_pb2.ORDER_STATUS_CANCELLED)
    answer = await send(api, path, method, BOSS)
    documented = operation(path, method)["responses"]
    success = next(status for status in documented if status.startswith("2"))
    assert str(answer.status_code) == success, answer.text
    check_headers(answer, path, method)
    if success == "204":
        assert answer.content == b""
    elif path.endswith("/stream"):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert documented[success]["content"]["text/event-stream"]["schema"]["type"] == "string"
        data = next(line for line in answer.text.splitlines() if line.startswith("data: "))
        check(json.loads(data.removeprefix("data: ")), {"schema": {"$ref": "#/components/schemas/Order"}})
    else:
        check(answer.json(), documented[success]["content"]["application/json"])
    missing = {name for name in documented[success]["headers"] if name not in answer.headers}
    assert missing <= {"Strict-Transport-Security"}, "sent in production"
    if location := documented[success]["headers"].get("Location"):
        shape = r"[a-z]{3}_[0-9a-f]{32}"
        assert re.sub(shape, "", answer.headers["location"]) == re.sub(shape, "", location["example"])


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
async def test_every_protected_route_refuses_strangers_and_customers_as_documented(
    api: httpx.AsyncClient, backend: Backend, path: str, method: str
) -> None:
    security = operation(path, method).get("security")
    if security == [{"bearer": []}]:
        answer = await send(api, path, method, {})
        assert answer.status_code == 401
        check(answer.json(), response(path, method, 401)["content"]["application/problem+json"])
        check_headers(answer, path, method)
        assert backend.calls == []
    if "/admin/" in path:
        answer = await send(api, path, method, {"authorization": f"Bearer user:{USER}"})
        assert answer.status_code == 403
        check(answer.json(), response(path, method, 403)["content"]["application/problem+json"])
        check_headers(answer, path, method)
        assert backend.calls == []


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_is_described_with_examples_that_fit(path: str, method: str) -> None:
    documented = operation(path, method)
    assert documented["summary"]
    assert documented["tags"]
    bodies = [documented["requestBody"]["content"]] if "requestBody" in documented else []
    contents = bodies + [
        response(path, method, status)["content"]
        for status in documented["responses"]
        if "content" in response(path, method, status)
    ]
    for content in contents:
        for media in content.values():
            check(media["example"], media)
    assert not any(key.startswith("x-") for key in documented)


def test_operation_ids_are_unique_names_of_methods_a_verb_and_what_it_acts_on() -> None:
    ids = [operation(path, method)["operationId"] for path, method in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not re.fullmatch(r"[a-z]+([A-Z][a-z0-9]*)+", name)] == []
    assert all(len(name) < 30 for name in ids)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
async def test_every_refusal_has_documented_headers(
    api: httpx.AsyncClient, backend: Backend, path: str, method: str
) -> None:
    backend.answers["WatchOrder"] = order(orders_pb2.ORDER_STATUS_CANCELLED)
    documented = operation(path, method)
    url = path.format(**_IDS)
    answers = [await api.request(method, url, headers={**BOSS, "if-none-match": "*"})] if method == "get" else []
    if "requestBody" in documented:
        for content_type, body in (("application/json", b"{"), ("text/plain", b"{}")):
            headers = {**BOSS, "content-type": content_type}
            answers.append(await api.request(method, url, headers=headers, content=body))
        assert [answer.status_code for answer in answers] == [400, 415]
    for answer in answers:
        check_headers(answer, path, method)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_says_who_may_call_it(path: str, method: str) -> None:
    assert operation(path, method)["security"] in ([], [{}, {"bearer": []}], [{"bearer": []}])


def test_the_document_says_where_the_api_is_whose_it_is_and_under_which_terms() -> None:
    assert DOCUMENT["servers"][0]["url"] == "/"
    assert DOCUMENT["info"]["license"] == {"name": "MIT", "identifier": "MIT"}
    assert DOCUMENT["info"]["contact"]["name"]
    assert all(tag["description"] for tag in DOCUMENT["tags"])
    used = {tag for path, method in OPERATIONS for tag in operation(path, method)["tags"]}
    assert used == {tag["name"] for tag in DOCUMENT["tags"]}


def test_what_may_be_null_says_so_in_its_type() -> None:
    pages = [name for name in DOCUMENT["components"]["schemas"] if name.endswith("Page")]
    assert "OrderPage" in pages
    for page in pages:
        cursor = DOCUMENT["components"]["schemas"][page]["properties"]["next_cursor"]
        assert cursor["type"] == ["string", "null"]
    found = list(subschemas(DOCUMENT))
    choices = [choice for schema in found for choice in schema.get("anyOf", ())]
    assert [schema for schema in found if schema.get("type") == "null"] == [
        choice for choice in choices if choice == {"type": "null"}
    ]
    assert all("$ref" in choice for choice in choices if choice != {"type": "null"})


def test_every_integer_has_a_format_and_bounds_that_json_numbers_can_hold() -> None:
    for schema in subschemas(DOCUMENT):
        if "integer" in str(schema.get("type", "")) and not isinstance(schema["type"], dict):
            assert {"format", "minimum", "maximum"} <= schema.keys(), schema
            most = 2**31 - 1 if schema["format"] == "int32" else 2**53 - 1
            assert -most <= schema["minimum"] <= schema["maximum"] <= most, schema


def test_a_field_of_a_body_that_may_be_absent_has_no_default() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        assert [name for name, field in schema.get("properties", {}).items() if "default" in field] == []


def test_every_enumeration_is_a_schema_of_its_own() -> None:
    named = DOCUMENT["components"]["schemas"]
    inline = [schema for schema in subschemas(DOCUMENT) if isinstance(schema.get("enum"), list)]
    assert inline == [schema for schema in named.values() if "enum" in schema]
    constants = [constant for schema in inline for constant in schema["x-enum-varnames"]]
    assert len(set(constants)) == len(constants), "Go has one namespace for all"


def test_no_request_needs_a_body_where_clients_send_none() -> None:
    with_body = {
        (path, method)
        for path, method in OPERATIONS
        if method in ("get", "delete") and "requestBody" in operation(path, method)
    }
    assert all(operation(path, method)["deprecated"] for path, method in with_body)
    assert with_body == {("/v1/sessions", "delete")}


async def test_the_served_document_is_this_one(api: httpx.AsyncClient) -> None:
    answer = await api.get("/openapi.json")
    assert answer.json() == DOCUMENT
    assert answer.json()["openapi"].startswith("3.1")


async def test_probes_and_metrics_are_served_and_not_documented(api: httpx.AsyncClient) -> None:
    for path in ("/healthz/live", "/healthz/ready", "/metrics"):
        assert (await api.get(path)).status_code == 200
        assert path not in DOCUMENT["paths"]


async def test_the_docs_page_needs_nothing_from_elsewhere(api: httpx.AsyncClient) -> None:
    page = await api.get("/docs")
    assert page.status_code == 200
    assert "http" not in page.text
    for part in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert part in page.text
        assert (await api.get(f"/docs/{part}")).status_code == 200
    assert (await api.get("/docs/other.js")).status_code == 404
