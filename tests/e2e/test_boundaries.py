"""What must not get through: each refusal is a problem document, and leaves a line with its correlation id."""

import time
from io import BytesIO
from typing import Any

import pytest

from knative.local.demo.shop import ADDRESS, Person, Shop
from tests.e2e.conftest import MakeProduct
from tests.e2e.platform import LocalPlatform

CORRELATION = "e2e-correlation-0001"
MEMBERS = {"type", "title", "status", "detail", "code", "reason", "correlation_id", "errors"}


def assert_problem(answer: tuple[int, Any, Any], status: int, code: str) -> None:
    seen, body, headers = answer
    assert (seen, body["status"], body["code"]) == (status, status, code), body
    assert headers["content-type"].startswith("application/problem+json")
    assert set(body) >= MEMBERS
    assert headers["x-correlation-id"] == body["correlation_id"]


def order_body(product_id: str, **changed: Any) -> dict[str, Any]:
    line = {"product_id": product_id, "quantity": 1}
    return {"lines": [line], "shipping_address": ADDRESS, "payment_token": "tok_ok", **changed}


async def test_malformed_json_is_refused(shop: Shop, customer: Person) -> None:
    answer = await shop.raw(
        "POST", "/v1/orders", who=customer, data=b'{"lines": [', headers={"content-type": "application/json"}
    )
    assert_problem(answer, 400, "INVALID_ARGUMENT")


async def test_a_body_of_2_mib_is_refused(shop: Shop, customer: Person) -> None:
    body = BytesIO(b'{"name": "' + b"x" * (2 * 1024 * 1024) + b'"}')
    answer = await shop.raw("POST", "/v1/users", data=body, headers={"content-type": "application/json"})
    assert answer[0] == 413
    assert set(answer[1]) >= MEMBERS


@pytest.mark.parametrize("quantity", [-1, 0, 1.5, "1", 10**9, True])
async def test_a_quantity_that_is_none_is_refused_by_its_field(
    shop: Shop, customer: Person, make_product: MakeProduct, quantity: Any
) -> None:
    product = await make_product()
    body = order_body("x", lines=[{"product_id": product["id"], "quantity": quantity}])
    answer = await shop.raw("POST", "/v1/orders", who=customer, json=body, headers={"idempotency-key": "k" * 20})
    assert_problem(answer, 400, "INVALID_ARGUMENT")
    assert answer[1]["errors"][0]["field"] == "lines[0].quantity"


async def test_an_unknown_currency_is_refused(shop: Shop, admin: Person) -> None:
    body = {"sku": "X-1", "name": "x", "category": "x", "price": {"amount": 1, "currency": "XQQ"}}
    answer = await shop.raw("POST", "/v1/products", who=admin, json=body)
    assert_problem(answer, 400, "INVALID_ARGUMENT")
    assert answer[1]["errors"][0]["field"] == "price.currency"


@pytest.mark.parametrize("token", ["garbage", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])
async def test_a_garbage_token_is_refused(shop: Shop, token: str) -> None:
    answer = await shop.raw("GET", "/v1/orders", headers={"authorization": f"Bearer {token}"})
    assert_problem(answer, 401, "UNAUTHENTICATED")
    assert answer[2]["www-authenticate"].startswith("Bearer")


async def test_no_token_is_refused_where_one_is_needed(shop: Shop) -> None:
    assert_problem(await shop.raw("GET", "/v1/orders"), 401, "UNAUTHENTICATED")


async def test_a_customer_cannot_read_or_cancel_or_pay_for_anothers_order(
    shop: Shop, customer: Person, make_product: MakeProduct
) -> None:
    product = await make_product()
    placed = await shop.order(customer, {product["id"]: 1})
    await shop.settled(customer, placed["id"])
    stranger = await shop.register("Eve")
    path = f"/v1/orders/{placed['id']}"
    for method, where, body in [
        ("GET", path, None),
        ("GET", f"{path}/payment", None),
        ("GET", f"{path}/stream", None),
        ("POST", f"{path}/cancel", {"reason": "MINE"}),
    ]:
        assert_problem(await shop.raw(method, where, who=stranger, json=body), 404, "NOT_FOUND")
    refund = await shop.raw(
        "POST",
        f"/v1/payments/pay_{placed['id'][4:]}/refunds",
        who=stranger,
        json={},
        headers={"idempotency-key": "k1"},
    )
    assert_problem(refund, 403, "PERMISSION_DENIED")
    assert (await shop.call("GET", path, who=customer))["status"] == "CONFIRMED"


async def test_a_customer_cannot_change_the_catalogue_or_its_stock(
    shop: Shop, customer: Person, make_product: MakeProduct
) -> None:
    product = await make_product(on_hand=7)
    path = f"/v1/products/{product['id']}"
    for method, where, body in [
        ("PUT", f"{path}/stock", {"on_hand": 1000}),
        ("PATCH", path, {"price": {"amount": 1, "currency": "EUR"}}),
        ("DELETE", path, None),
        ("GET", "/v1/admin/orders", None),
        ("GET", "/v1/admin/users", None),
        ("GET", "/v1/admin/dead-letters", None),
    ]:
        assert_problem(await shop.raw(method, where, who=customer, json=body), 403, "PERMISSION_DENIED")
    assert (await shop.stock(product["id"]))["on_hand"] == 7


async def test_headers_that_name_identity_change_nothing(shop: Shop, customer: Person) -> None:
    for name in ("x-user-id", "X-User-Roles", "x_user_roles", "x-forwarded-user"):
        answer = await shop.raw("GET", "/v1/admin/users", who=customer, headers={name: "admin"})
        assert_problem(answer, 403, "PERMISSION_DENIED")


async def test_fields_that_are_not_the_customers_to_set_are_refused(shop: Shop, customer: Person) -> None:
    answer = await shop.raw("PATCH", "/v1/users/me", who=customer, json={"name": "Ada", "roles": ["admin"]})
    assert_problem(answer, 400, "INVALID_ARGUMENT")
    assert (await shop.call("GET", "/v1/users/me", who=customer))["roles"] == ["customer"]


async def test_a_wrong_password_and_an_unknown_email_get_the_same_answer(shop: Shop, customer: Person) -> None:
    wrong = await shop.raw("POST", "/v1/sessions", json={"email": customer.email, "password": "wrong-password"})
    unknown = await shop.raw("POST", "/v1/sessions", json={"email": "nobody@example.com", "password": "wrong-password"})
    assert_problem(wrong, 401, "UNAUTHENTICATED")
    assert {k: wrong[1][k] for k in ("title", "detail", "reason")} == {
        k: unknown[1][k] for k in ("title", "detail", "reason")
    }


async def test_the_sixth_attempt_at_a_password_has_to_wait(shop: Shop, customer: Person) -> None:
    for _ in range(5):
        await shop.raw("POST", "/v1/sessions", json={"email": customer.email, "password": "wrong-password"})
    answer = await shop.raw("POST", "/v1/sessions", json={"email": customer.email, "password": customer.password})
    assert_problem(answer, 429, "RESOURCE_EXHAUSTED")
    assert int(answer[2]["retry-after"]) > 0


async def test_a_reused_refresh_token_ends_its_session(shop: Shop, customer: Person) -> None:
    first = {"refresh_token": customer.tokens["refresh_token"]}
    renewed = await shop.call("POST", "/v1/sessions/refresh", json=first)
    assert_problem(await shop.raw("POST", "/v1/sessions/refresh", json=first), 401, "UNAUTHENTICATED")
    stolen = await shop.raw("POST", "/v1/sessions/refresh", json={"refresh_token": renewed["refresh_token"]})
    assert_problem(stolen, 401, "UNAUTHENTICATED")


async def test_an_edit_of_what_changed_meanwhile_is_refused(shop: Shop, customer: Person) -> None:
    _, _, headers = await shop.raw("GET", "/v1/users/me", who=customer)
    edit = {"if-match": headers["etag"]}
    assert (await shop.raw("PATCH", "/v1/users/me", who=customer, json={"name": "A"}, headers=edit))[0] == 200
    late = await shop.raw("PATCH", "/v1/users/me", who=customer, json={"name": "B"}, headers=edit)
    assert late[0] == 412


async def test_an_unknown_route_is_a_problem_too(shop: Shop) -> None:
    assert_problem(await shop.raw("GET", "/v1/nothing"), 404, "NOT_FOUND")


async def test_a_refusal_leaves_a_line_with_its_correlation_id(shop: Shop, local: LocalPlatform) -> None:
    headers = {"authorization": "Bearer garbage", "x-correlation-id": CORRELATION}
    answer = await shop.raw("GET", "/v1/orders", headers=headers)
    assert answer[1]["correlation_id"] == CORRELATION
    deadline = time.monotonic() + 10
    while not any(line.get("correlation_id") == CORRELATION for line in local.log("gateway")):
        assert time.monotonic() < deadline, "no line with the correlation id"


async def test_one_correlation_id_runs_through_every_part_of_a_checkout(
    shop: Shop, customer: Person, make_product: MakeProduct, local: LocalPlatform
) -> None:
    product = await make_product()
    headers = {"x-correlation-id": "e2e-checkout-trail-1", "idempotency-key": "trail"}
    _, placed, _ = await shop.raw("POST", "/v1/orders", who=customer, json=order_body(product["id"]), headers=headers)
    await shop.settled(customer, placed["id"])
    parts = ("gateway", "orders", "products", "payments", "notifications")
    deadline = time.monotonic() + 20
    missing = list(parts)
    while missing:
        assert time.monotonic() < deadline, f"no line of {missing} carries the correlation id"
        missing = [
            part
            for part in parts
            if not any(line.get("correlation_id") == "e2e-checkout-trail-1" for line in local.log(part))
        ]
    traces = {
        line["trace_id"]
        for part in parts
        for line in local.log(part)
        if line.get("correlation_id") == "e2e-checkout-trail-1"
    }
    assert len(traces) == 1


@pytest.mark.parametrize(
    "address",
    [
        {
            "name": "山田　太郎",
            "line1": "千代田1-1",
            "city": "千代田区",
            "postal_code": "100-0001",
            "country": "JP",
        },
        {"name": "Ada", "line1": "1 Peak Road", "city": "Hong Kong", "country": "HK"},
        {"name": "Ada", "line1": "1 Creek Road", "city": "Dubai", "postal_code": "", "country": "AE"},
    ],
    ids=lambda address: address["country"],
)
async def test_book_and_order_take_the_same_addresses(
    shop: Shop, customer: Person, make_product: MakeProduct, address: dict[str, str]
) -> None:
    product = await make_product()
    kept = await shop.call("POST", "/v1/users/me/addresses", who=customer, json=address)
    body = order_body(product["id"], shipping_address=address)
    order = await shop.call("POST", "/v1/orders", who=customer, json=body)
    assert order["shipping_address"] == {name: kept[name] for name in order["shipping_address"]}
    assert {**order["shipping_address"], **address} == order["shipping_address"]


@pytest.mark.parametrize("name", ["\u3164", "\u200b\u200d", "Ada \u202egnp", "A\u2028da", "Ada\u0378"])
async def test_what_is_no_line_of_text_is_one_nowhere(
    shop: Shop, customer: Person, admin: Person, make_product: MakeProduct, name: str
) -> None:
    product = await make_product()
    bad = {**ADDRESS, "name": name}
    account = {"email": "line@example.com", "password": "correct horse battery", "name": name}
    for who, method, path, body, field in (
        (None, "POST", "/v1/users", account, "name"),
        (customer, "PATCH", "/v1/users/me", {"name": name}, "name"),
        (customer, "POST", "/v1/users/me/addresses", bad, "name"),
        (
            customer,
            "POST",
            "/v1/orders",
            order_body(product["id"], shipping_address=bad),
            "shipping_address.name",
        ),
        (admin, "PATCH", f"/v1/products/{product['id']}", {"name": name}, "name"),
    ):
        answer = await shop.raw(method, path, who=who, json=body)
        assert_problem(answer, 400, "INVALID_ARGUMENT")
        assert [error["field"] for error in answer[1]["errors"]] == [field]
