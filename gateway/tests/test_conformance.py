"""What is served is what OpenAPI says."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from functions.runtime.testing import FakeVerifier
from gateway.app import create_app
from gateway.settings import Settings
from gateway.tests.conftest import BOSS
from gateway.tests.deadletters import LETTER
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
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


def check(content: Any, media: dict[str, Any]) -> None:
    """Raise unless `content` fits the schema."""
    schema = {"components": DOCUMENT["components"], "allOf": [media["schema"]]}
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    validator.validate(content)


def operation(path: str, method: str) -> dict[str, Any]:
    """Its part of the document."""
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


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
    if success == "204":
        assert answer.content == b""
    elif path.endswith("/stream"):
        assert answer.headers["content-type"].startswith("text/event-stream")
    else:
        check(answer.json(), documented[success]["content"]["application/json"])
    for header in documented[success].get("headers", {}):
        assert header in answer.headers


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
async def test_every_protected_route_refuses_strangers_and_customers_as_documented(
    api: httpx.AsyncClient, backend: Backend, path: str, method: str
) -> None:
    security = operation(path, method).get("security")
    documented = operation(path, method)["responses"]
    if security == [{"bearer": []}]:
        answer = await send(api, path, method, {})
        assert answer.status_code == 401
        check(answer.json(), documented["401"]["content"]["application/problem+json"])
        assert backend.calls == []
    if "/admin/" in path:
        answer = await send(api, path, method, {"authorization": f"Bearer user:{USER}"})
        assert answer.status_code == 403
        check(answer.json(), documented["403"]["content"]["application/problem+json"])
        assert backend.calls == []


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_is_described_with_examples_that_fit(path: str, method: str) -> None:
    documented = operation(path, method)
    assert documented["summary"]
    assert documented["tags"]
    bodies = [documented["requestBody"]["content"]] if "requestBody" in documented else []
    contents = bodies + [
        answer["content"] for answer in documented["responses"].values() if "content" in answer
    ]
    for content in contents:
        for media in content.values():
            if "schema" in media:
                check(media["example"], media)
    assert not any(key.startswith("x-") for key in documented)


def test_operation_ids_are_unique_and_short() -> None:
    ids = [operation(path, method)["operationId"] for path, method in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert all(len(name) < 30 for name in ids)


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
