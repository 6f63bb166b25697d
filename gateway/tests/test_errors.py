"""Everything that goes wrong is a problem document, with a line in the log."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from events.catalog import Money
from functions.runtime.errors import (
    Code,
    ServiceError,
    aborted,
    already_exists,
    exhausted,
    failed_precondition,
    invalid,
    not_found,
    unavailable,
)
from gateway.tests.conftest import BOSS, CUSTOMER, Start, assert_problem
from gateway.tests.fakes import ADDRESS, HEX, ORDER, PRODUCT, Backend
from observability import context

_ADDRESS = {"name": "Ada", "line1": "Hauptstr. 1", "city": "Berlin", "postal_code": "10115", "country": "DE"}


def new_order(**changes: Any) -> dict[str, Any]:
    """A body for POST /v1/orders."""
    lines = [{"product_id": PRODUCT, "quantity": 1}]
    return {"lines": lines, "shipping_address": _ADDRESS, "payment_token": "tok_ok", **changes}


RAISED = [
    (invalid("No.", ("lines[0].product_id", "is unknown"), reason="PRODUCT_UNKNOWN"), 400, "PRODUCT_UNKNOWN"),
    (invalid("No.", reason="IDEMPOTENCY_KEY_REUSED"), 422, "IDEMPOTENCY_KEY_REUSED"),
    (ServiceError(Code.UNAUTHENTICATED, "TOKEN_EXPIRED", "No."), 401, "TOKEN_EXPIRED"),
    (ServiceError(Code.PERMISSION_DENIED, "PERMISSION_DENIED", "No."), 403, "PERMISSION_DENIED"),
    (not_found("Order", "ORDER_NOT_FOUND"), 404, "ORDER_NOT_FOUND"),
    (already_exists("EMAIL_TAKEN", "No."), 409, "EMAIL_TAKEN"),
    (failed_precondition("PRODUCT_INACTIVE", "No."), 409, "PRODUCT_INACTIVE"),
    (aborted("VERSION_MISMATCH", "No."), 409, "VERSION_MISMATCH"),
    (exhausted("TOO_MANY_ATTEMPTS", "No.", 12.2), 429, "TOO_MANY_ATTEMPTS"),
    (exhausted("TOO_MANY_ADDRESSES", "No.", 0), 409, "TOO_MANY_ADDRESSES"),
    (unavailable("STORE_BUSY", "No.", 2.5), 503, "STORE_BUSY"),
    (ServiceError(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "No."), 504, "DEADLINE_EXCEEDED"),
    (RuntimeError("secret: SELECT * FROM users"), 500, "INTERNAL"),
]


@pytest.mark.parametrize(("raised", "status", "reason"), RAISED)
async def test_what_a_service_raises_becomes_a_problem_and_a_line_in_the_log(
    api: httpx.AsyncClient,
    backend: Backend,
    lines: list[dict[str, Any]],
    raised: Exception,
    status: int,
    reason: str,
) -> None:
    backend.fails["PlaceOrder"] = raised
    headers = {**CUSTOMER, "x-correlation-id": "my-own-id-1"}
    answer = await api.post("/v1/orders", headers=headers, json=new_order())
    problem = assert_problem(answer, status, reason)
    assert problem["correlation_id"] == "my-own-id-1"
    assert "secret" not in answer.text
    violations = getattr(raised, "violations", ())
    assert problem["errors"] == [{"field": v.field, "message": v.message} for v in violations]
    line = next(line for line in lines if line["event"] == "request")
    assert (line["correlation_id"], line["status"], line["reason"]) == ("my-own-id-1", status, reason)
    assert line["route"] == "/v1/orders"


async def test_a_changed_price_names_both_totals_for_programs(api: httpx.AsyncClient, backend: Backend) -> None:
    amounts = {"expected_total": Money(3998, "EUR"), "total": Money(99_000, "EUR")}
    backend.fails["PlaceOrder"] = ServiceError(
        Code.FAILED_PRECONDITION, "PRICE_CHANGED", "Look again.", amounts=amounts
    )
    expected = {"amount": 3998, "currency": "EUR"}
    body = {**new_order(), "expected_total": expected}
    problem = assert_problem(await api.post("/v1/orders", headers=CUSTOMER, json=body), 409, "PRICE_CHANGED")
    assert problem["expected_total"] == expected
    assert problem["total"] == {"amount": 99_000, "currency": "EUR"}
    wanted = backend.last("PlaceOrder")
    assert (wanted.expected_total.amount, wanted.expected_total.currency) == (3998, "EUR")
    assert wanted.client_address


async def test_refusals_say_when_to_come_back_and_how_to_sign_in(api: httpx.AsyncClient, backend: Backend) -> None:
    backend.fails["Login"] = exhausted("TOO_MANY_ATTEMPTS", "Later.", 12.2)
    login = {"email": "ada@example.com", "password": "wrong"}
    assert (await api.post("/v1/sessions", json=login)).headers["retry-after"] == "13"
    backend.fails["Login"] = ServiceError(Code.UNAUTHENTICATED, "INVALID_CREDENTIALS", "No.")
    assert (await api.post("/v1/sessions", json=login)).headers["www-authenticate"] == 'Bearer realm="shop"'
    answer = await api.get("/v1/orders", headers={"authorization": "Bearer garbage"})
    assert_problem(answer, 401, "TOKEN_INVALID")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_a_service_that_is_not_there_is_503_and_one_that_is_too_slow_504(start: Start, backend: Backend) -> None:
    api = await start(deadline_seconds=0.3, orders_address="127.0.0.1:1")
    answer = await api.get("/v1/orders", headers=CUSTOMER)
    assert answer.status_code in (503, 504)
    backend.slow["GetProduct"] = 5.0
    answer = await api.get(f"/v1/products/{PRODUCT}")
    assert_problem(answer, 504, "DEADLINE_EXCEEDED")


async def test_a_fault_in_the_gateway_itself_shows_nothing_of_it(
    api: httpx.AsyncClient, backend: Backend, lines: list[dict[str, Any]]
) -> None:
    backend.answers["GetJwks"] = None
    backend.answers["GetOrder"] = backend.answers["x"] = None
    from proto.shop.orders.v1 import orders_pb2

    broken = orders_pb2.Order(id=ORDER)
    broken.status = 987654321  # type: ignore[assignment] # a status that this gateway does not know
    backend.answers["GetOrder"] = broken
    answer = await api.get(f"/v1/orders/{ORDER}", headers=CUSTOMER)
    problem = assert_problem(answer, 500, "INTERNAL")
    assert "987654321" not in answer.text
    crashed = next(line for line in lines if line["event"] == "request_crashed")
    assert crashed["correlation_id"] == problem["correlation_id"]
    assert "KeyError" in crashed["exception"]


BAD_BODIES: list[tuple[str, bytes, str, str]] = [
    ("cut off", b'{"lines": [', "MALFORMED_JSON", ""),
    ("no JSON at all", b"hello", "MALFORMED_JSON", ""),
    ("not UTF-8", b'{"payment_token": "\xff"}', "MALFORMED_JSON", ""),
    ("half a surrogate", b'{"payment_token": "\\ud800"}', "MALFORMED_JSON", ""),
    ("not a number", b'{"lines": NaN}', "MALFORMED_JSON", ""),
    ("too deep", b'{"a":' * 40 + b"1" + b"}" * 40, "MALFORMED_JSON", ""),
    ("absurdly deep", b"[" * 100_000 + b"]" * 100_000, "MALFORMED_JSON", ""),
    ("empty", b"", "INVALID_ARGUMENT", "body"),
    ("null", b"null", "INVALID_ARGUMENT", "body"),
    ("a list", b"[]", "INVALID_ARGUMENT", "body"),
    ("nothing in it", b"{}", "INVALID_ARGUMENT", "lines"),
]


@pytest.mark.parametrize(("raw", "reason", "field"), [case[1:] for case in BAD_BODIES], ids=[c[0] for c in BAD_BODIES])
async def test_a_body_that_is_no_request_is_refused(
    api: httpx.AsyncClient, backend: Backend, raw: bytes, reason: str, field: str
) -> None:
    headers = {**CUSTOMER, "content-type": "application/json"}
    problem = assert_problem(await api.post("/v1/orders", headers=headers, content=raw), 400, reason)
    if field:
        assert field in {error["field"] for error in problem["errors"]}
    assert backend.calls == []


BAD_FIELDS: list[tuple[str, str, dict[str, Any]]] = [
    ("lines", "none", {"lines": []}),
    ("lines", "too many", {"lines": [{"product_id": PRODUCT, "quantity": 1}] * 51}),
    ("lines[0].quantity", "negative", {"lines": [{"product_id": PRODUCT, "quantity": -1}]}),
    ("lines[0].quantity", "zero", {"lines": [{"product_id": PRODUCT, "quantity": 0}]}),
    ("lines[0].quantity", "a fraction", {"lines": [{"product_id": PRODUCT, "quantity": 1.5}]}),
    ("lines[0].quantity", "a string", {"lines": [{"product_id": PRODUCT, "quantity": "1"}]}),
    ("lines[0].quantity", "a boolean", {"lines": [{"product_id": PRODUCT, "quantity": True}]}),
    ("lines[0].quantity", "huge", {"lines": [{"product_id": PRODUCT, "quantity": 10**30}]}),
    ("lines[0].product_id", "no id", {"lines": [{"product_id": "x", "quantity": 1}]}),
    ("lines[0].price", "unknown", {"lines": [{"product_id": PRODUCT, "quantity": 1, "price": 1}]}),
    ("status", "unknown", {"status": "CONFIRMED"}),
    ("shipping_address.name", "control", {"shipping_address": {**_ADDRESS, "name": "A\u0000da"}}),
    ("shipping_address.line1", "blank", {"shipping_address": {**_ADDRESS, "line1": "   "}}),
    ("shipping_address.name", "invisible", {"shipping_address": {**_ADDRESS, "name": "\u3164\u200b"}}),
    ("shipping_address.name", "turned", {"shipping_address": {**_ADDRESS, "name": "Ada \u202egnp"}}),
    ("shipping_address.city", "unassigned", {"shipping_address": {**_ADDRESS, "city": "Berlin\u0378"}}),
    ("shipping_address.country", "long", {"shipping_address": {**_ADDRESS, "country": "Germany"}}),
    ("shipping_address", "missing", {"shipping_address": None}),
    ("payment_token", "blanks", {"payment_token": "4111 1111 1111 1111"}),
]


@pytest.mark.parametrize(("field", "what", "changes"), BAD_FIELDS)
async def test_a_field_at_fault_is_named(
    api: httpx.AsyncClient, backend: Backend, field: str, what: str, changes: dict[str, Any]
) -> None:
    answer = await api.post("/v1/orders", headers=CUSTOMER, json=new_order(**changes))
    problem = assert_problem(answer, 400, "INVALID_ARGUMENT")
    assert [error["field"] for error in problem["errors"]] == [field], what
    assert backend.calls == []


PRODUCT_BODY: dict[str, Any] = {
    "sku": "MUG-01",
    "name": "Mug",
    "category": "kitchen",
    "price": {"amount": 1, "currency": "EUR"},
}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("price.currency", {"price": {"amount": 1, "currency": "euro"}}),
        ("price.amount", {"price": {"amount": -1, "currency": "EUR"}}),
        ("price.amount", {"price": {"amount": 1.5, "currency": "EUR"}}),
        ("price.amount", {"price": {"amount": 10**19, "currency": "EUR"}}),
        ("image_urls[0]", {"image_urls": ["http://img.example.com/a.jpg"]}),
        ("active", {"active": "yes"}),
        ("sku", {"sku": "a b"}),
        ("category", {"category": "Kitchen"}),
    ],
)
async def test_a_product_field_at_fault_is_named(api: httpx.AsyncClient, field: str, changes: dict[str, Any]) -> None:
    answer = await api.post("/v1/products", headers=BOSS, json={**PRODUCT_BODY, **changes})
    problem = assert_problem(answer, 400, "INVALID_ARGUMENT")
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin-1"]
)
async def test_a_body_that_is_not_announced_as_json_is_415(api: httpx.AsyncClient, media: str) -> None:
    headers = {**CUSTOMER, "content-type": media}
    answer = await api.post("/v1/orders", headers=headers, content=b"{}")
    assert_problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


async def test_unknown_paths_are_404_and_wrong_methods_405_with_all_that_is_allowed(
    api: httpx.AsyncClient, lines: list[dict[str, Any]]
) -> None:
    assert_problem(await api.get("/v1/nothing"), 404, "ROUTE_NOT_FOUND")
    assert_problem(await api.get("/v1/products/"), 404, "ROUTE_NOT_FOUND")
    answer = await api.put("/v1/products", json={})
    assert_problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET, HEAD, POST"
    answer = await api.put("/v1/admin/dead-letters/replay")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert lines[0]["route"] == "unmatched"


@pytest.mark.parametrize(("sent", "status"), [(7.0, 200), (7.5, 400), (True, 400), ("7", 400), (1e300, 400)])
async def test_an_integer_is_what_json_schema_takes_for_one(
    api: httpx.AsyncClient, backend: Backend, sent: object, status: int
) -> None:
    answer = await api.put(f"/v1/products/{PRODUCT}/stock", headers=BOSS, json={"on_hand": sent})
    assert answer.status_code == status
    assert [wanted.on_hand for _, wanted, _ in backend.calls] == ([7] if status == 200 else [])


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/v1/products/nonsense", "PRODUCT_NOT_FOUND"),
        (f"/v1/products/ord_{HEX}", "PRODUCT_NOT_FOUND"),
        (f"/v1/products/{PRODUCT}%0a", "PRODUCT_NOT_FOUND"),
        ("/v1/orders/1", "ORDER_NOT_FOUND"),
        ("/v1/notifications/1", "NOTIFICATION_NOT_FOUND"),
    ],
)
async def test_an_id_that_cannot_be_one_is_not_found_without_asking(
    api: httpx.AsyncClient, backend: Backend, path: str, reason: str
) -> None:
    assert_problem(await api.get(path, headers=CUSTOMER), 404, reason)
    assert backend.calls == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=1.5", "cursor=%0a", "q=%00", f"q={'x' * 201}"]
)
async def test_query_parameters_have_bounds(api: httpx.AsyncClient, query: str) -> None:
    problem = assert_problem(await api.get(f"/v1/products?{query}"), 400, "INVALID_ARGUMENT")
    assert [error["field"] for error in problem["errors"]] == [query.partition("=")[0]]


async def test_a_correlation_id_is_taken_only_when_well_formed(api: httpx.AsyncClient) -> None:
    for sent in ("short", "x" * 65, "with blank", "<script>alert</script>"):
        answer = await api.get("/v1/nothing", headers={"x-correlation-id": sent})
        assert answer.headers["x-correlation-id"] != sent
        assert len(answer.headers["x-correlation-id"]) == 32


async def test_each_request_has_its_own_correlation_id(api: httpx.AsyncClient) -> None:
    with context.use(context.incoming("outer-context-1", None)):
        ids = {(await api.get("/v1/nothing")).headers["x-correlation-id"] for _ in range(3)}
    assert len(ids) == 3


async def test_an_address_that_is_none_is_not_found(api: httpx.AsyncClient, backend: Backend) -> None:
    backend.fails["DeleteAddress"] = not_found("Address", "ADDRESS_NOT_FOUND")
    answer = await api.delete(f"/v1/users/me/addresses/{ADDRESS}", headers=CUSTOMER)
    assert_problem(answer, 404, "ADDRESS_NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "body", "field", "message"),
    [
        ("/v1/users", {"email": "ada"}, "email", "must be an e-mail address like name@example.com"),
        ("/v1/users", {"name": "a\x00"}, "name", "must not have line breaks or control characters"),
        (
            "/v1/orders",
            {"lines": [{"product_id": "1", "quantity": 1}]},
            "lines[0].product_id",
            "must be an id: prd_ and 32 hexadecimal digits",
        ),
        ("/v1/products", {"sku": "a b"}, "sku", "must match ^[A-Za-z0-9._-]{1,64}$"),
    ],
)
async def test_what_has_the_wrong_form_is_told_the_right_one(
    api: httpx.AsyncClient, path: str, body: dict[str, Any], field: str, message: str
) -> None:
    problem = (await api.post(path, headers=BOSS, json=body)).json()
    assert {"field": field, "message": message} in problem["errors"]
