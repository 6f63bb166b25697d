"""What the routes ask the services for, and what they make of the answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from opentelemetry.trace import SpanKind

from functions.runtime.errors import aborted, invalid
from gateway.tests.conftest import BOSS, CUSTOMER, assert_problem
from gateway.tests.dead_letters import LETTER
from gateway.tests.fakes import ADMIN, HEX, ORDER, PAYMENT, PRODUCT, USER, Backend, product, user
from gateway.tests.test_errors import new_order
from observability import export, tracing
from observability.tests.spans import MemoryExporter
from proto.shop.orders.v1 import orders_pb2
from proto.shop.products.v1 import products_pb2
from proto.shop.users.v1 import users_pb2


async def test_a_product_is_shown_with_its_price_times_and_etag(api: httpx.AsyncClient) -> None:
    answer = await api.get(f"/v1/products/{PRODUCT}")
    assert answer.status_code == 200
    assert answer.headers["etag"] == '"3"'
    assert answer.headers["cache-control"] == "no-cache"
    body = answer.json()
    assert body["price"] == {"amount": 1999, "currency": "EUR"}
    assert body["created_at"] == "2030-01-01T12:00:00.000001Z"


@pytest.mark.parametrize("given", ['"3"', 'W/"3"', '"1", "3"', "*"])
async def test_what_the_client_has_already_is_304(api: httpx.AsyncClient, given: str) -> None:
    answer = await api.get(f"/v1/products/{PRODUCT}", headers={"if-none-match": given})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"3"')


@pytest.mark.parametrize("given", ['"4"', '"33"', "3", "nonsense"])
async def test_what_the_client_does_not_have_is_sent(api: httpx.AsyncClient, given: str) -> None:
    assert (await api.get(f"/v1/products/{PRODUCT}", headers={"if-none-match": given})).status_code == 200


@pytest.mark.parametrize(
    ("given", "version"), [('"3"', 3), (' "3" ', 3), ('"9", "3"', 3), ("*", None), ('W/"3","4"', 4)]
)
async def test_if_match_is_passed_on_as_the_version_to_compare_with(
    api: httpx.AsyncClient, backend: Backend, given: str, version: int | None
) -> None:
    headers = {**BOSS, "if-match": given}
    answer = await api.patch(f"/v1/products/{PRODUCT}", headers=headers, json={"name": "Cup"})
    assert answer.status_code == 200
    wanted: products_pb2.UpdateProductRequest = backend.last("UpdateProduct")
    assert (wanted.version if wanted.HasField("version") else None) == version
    assert wanted.name == "Cup"
    assert not wanted.HasField("description")
    assert not wanted.HasField("price")
    assert not wanted.HasField("image_urls")


@pytest.mark.parametrize("given", ['W/"3"', '"abc"', '"1", "2"', '""'])
async def test_an_if_match_that_cannot_hold_is_412(api: httpx.AsyncClient, backend: Backend, given: str) -> None:
    headers = {**BOSS, "if-match": given}
    answer = await api.put(f"/v1/products/{PRODUCT}/stock", headers=headers, json={"on_hand": 1})
    assert_problem(answer, 412, "VERSION_MISMATCH")
    assert not any(name == "SetStock" for name, _, _ in backend.calls)


@pytest.mark.parametrize("given", ["3", '"3', '"3" "4"', '"3"; x', '"3"' + " ," * 5000 + "x"])
async def test_an_if_match_that_cannot_be_read_is_400(api: httpx.AsyncClient, given: str) -> None:
    headers = {**BOSS, "if-match": given}
    answer = await api.patch(f"/v1/products/{PRODUCT}", headers=headers, json={"name": "Cup"})
    assert_problem(answer, 400, "INVALID_ARGUMENT")


async def test_a_lost_race_is_412_with_if_match_and_409_without(api: httpx.AsyncClient, backend: Backend) -> None:
    backend.fails["UpdateUser"] = aborted("VERSION_MISMATCH", "It has changed.")
    conditional = {**CUSTOMER, "if-match": '"1"'}
    answer = await api.patch("/v1/users/me", headers=conditional, json={"name": "Ada"})
    assert_problem(answer, 412, "VERSION_MISMATCH")
    answer = await api.patch("/v1/users/me", headers=CUSTOMER, json={"name": "Ada"})
    assert_problem(answer, 409, "VERSION_MISMATCH")


async def test_deleting_honours_if_match(api: httpx.AsyncClient, backend: Backend) -> None:
    answer = await api.delete(f"/v1/products/{PRODUCT}", headers={**BOSS, "if-match": '"2"'})
    assert_problem(answer, 412, "VERSION_MISMATCH")
    answer = await api.delete(f"/v1/products/{PRODUCT}", headers={**BOSS, "if-match": '"3"'})
    assert answer.status_code == 204
    assert [name for name, _, _ in backend.calls].count("DeleteProduct") == 1


async def test_preferences_begin_with_version_zero(api: httpx.AsyncClient, backend: Backend) -> None:
    path = "/v1/notifications/preferences"
    tag = (await api.get(path, headers=CUSTOMER)).headers["etag"]
    answer = await api.put(path, headers={**CUSTOMER, "if-match": tag}, json={"muted_templates": []})
    assert answer.status_code == 200
    wanted = backend.last("UpdatePreferences")
    assert wanted.HasField("version")
    assert wanted.version == 0
    assert wanted.HasField("muted_templates")
    assert not wanted.HasField("email_enabled")


async def test_an_idempotency_key_is_passed_on(api: httpx.AsyncClient, backend: Backend) -> None:
    headers = {**CUSTOMER, "idempotency-key": "checkout-1"}
    answer = await api.post("/v1/orders", headers=headers, json=new_order())
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/orders/{ORDER}"
    assert backend.last("PlaceOrder").idempotency_key == "checkout-1"
    await api.post("/v1/orders", headers=CUSTOMER, json=new_order())
    assert not backend.last("PlaceOrder").HasField("idempotency_key")


@pytest.mark.parametrize("key", ["", "x" * 256, "with blank", "\u00e9".encode("latin-1")])
async def test_an_idempotency_key_has_a_form(api: httpx.AsyncClient, backend: Backend, key: Any) -> None:
    headers: Any = {**CUSTOMER, "idempotency-key": key}
    for path, body in (("/v1/orders", new_order()),):
        problem = assert_problem(await api.post(path, headers=headers, json=body), 400, "INVALID_ARGUMENT")
        assert problem["errors"][0]["field"] == "Idempotency-Key"
    refunds = f"/v1/payments/{PAYMENT}/refunds"
    assert_problem(await api.post(refunds, headers={**headers, **BOSS}, json={}), 400, "INVALID_ARGUMENT")
    assert backend.calls == []


async def test_lists_page_by_cursor(api: httpx.AsyncClient, backend: Backend) -> None:
    first = (await api.get("/v1/products?limit=1&q=mug&category=kitchen")).json()
    assert first["next_cursor"] == "next"
    backend.answers["ListProducts"] = products_pb2.ListProductsResponse(products=[product()])
    last = (await api.get("/v1/products?limit=1&cursor=next")).json()
    assert last["next_cursor"] is None
    wanted = backend.last("ListProducts")
    assert (wanted.limit, wanted.cursor) == (1, "next")


async def test_an_order_is_cancelled_with_or_without_a_reason(api: httpx.AsyncClient, backend: Backend) -> None:
    path = f"/v1/orders/{ORDER}/cancel"
    assert (await api.post(path, headers=CUSTOMER)).status_code == 202
    assert backend.last("CancelOrder").reason == ""
    answer = await api.post(path, headers=CUSTOMER, json={"reason": "CHANGED_MY_MIND"})
    assert answer.status_code == 202
    assert answer.json()["status"] == "CANCELLED"
    assert backend.last("CancelOrder").reason == "CHANGED_MY_MIND"
    too_long = await api.post(path, headers=CUSTOMER, json={"reason": "x" * 201})
    assert_problem(too_long, 400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("changed my mind", "CHANGED_MY_MIND"),
        (" 2 days late! ", "DAYS_LATE"),
        ("раздумал", ""),
        ("x" * 99, "X" * 64),
    ],
)
async def test_a_reason_in_words_becomes_a_stable_one(
    api: httpx.AsyncClient, backend: Backend, words: str, reason: str
) -> None:
    answer = await api.post(f"/v1/orders/{ORDER}/cancel", headers=CUSTOMER, json={"reason": words})
    assert answer.status_code == 202
    assert backend.last("CancelOrder").reason == reason


async def test_a_person_lists_their_own_orders_and_an_admin_anybodys(api: httpx.AsyncClient, backend: Backend) -> None:
    await api.get("/v1/orders?status=CONFIRMED", headers=CUSTOMER)
    wanted = backend.last("ListOrders")
    assert (wanted.all, wanted.user_id, wanted.status) == (False, "", orders_pb2.ORDER_STATUS_CONFIRMED)
    await api.get("/v1/admin/orders", headers=BOSS)
    assert backend.last("ListOrders").all
    await api.get(f"/v1/admin/orders?user_id={USER}", headers=BOSS)
    wanted = backend.last("ListOrders")
    assert (wanted.all, wanted.user_id) == (False, USER)
    assert_problem(await api.get("/v1/orders?status=LOST", headers=CUSTOMER), 400, "INVALID_ARGUMENT")


async def test_the_callers_token_and_context_travel_and_nothing_that_they_claim(
    api: httpx.AsyncClient, backend: Backend
) -> None:
    claimed = {
        "x-user-id": ADMIN,
        "x-roles": "admin",
        "x-forwarded-user": ADMIN,
        "grpc-metadata-authorization": "Bearer admin:x",
        "x-correlation-id": "correlation-1",
        "traceparent": f"00-{HEX}-00f067aa0ba902b7-01",
    }
    await api.get("/v1/users/me", headers={**CUSTOMER, **claimed})
    sent = backend.metadata[-1]
    assert sent["authorization"] == f"Bearer user:{USER}"
    assert sent["x-correlation-id"] == "correlation-1"
    assert sent["traceparent"].split("-")[1] == HEX
    assert not {"x-user-id", "x-roles", "x-forwarded-user", "grpc-metadata-authorization"} & set(sent)
    assert backend.last("GetUser").user_id == USER


async def test_a_bad_token_is_refused_even_where_none_is_needed_but_not_when_logging_in(
    api: httpx.AsyncClient, backend: Backend
) -> None:
    garbage = {"authorization": "Bearer garbage"}
    assert_problem(await api.get(f"/v1/products/{PRODUCT}", headers=garbage), 401, "TOKEN_INVALID")
    login = {"email": "ada@example.com", "password": "correct horse"}
    assert (await api.post("/v1/sessions", headers=garbage, json=login)).status_code == 200
    assert backend.last("Login").client_address == "192.0.2.1"
    basic = {"authorization": "Basic YTpi"}
    assert_problem(await api.get("/v1/orders", headers=basic), 401, "TOKEN_INVALID")
    service = {"authorization": "Bearer service:payments"}
    assert_problem(await api.get("/v1/orders", headers=service), 401, "TOKEN_INVALID")


async def test_a_device_token_comes_back_as_a_cookie_and_goes_along_at_the_next_login(
    api: httpx.AsyncClient, backend: Backend
) -> None:
    backend.answers["Login"] = users_pb2.Session(access_token="a.b.c", device_token="dt_first")
    login = {"email": "ada@example.com", "password": "correct horse"}
    answer = await api.post("/v1/sessions", json=login)
    assert answer.json()["device_token"] == "dt_first"
    name, _, attributes = answer.headers["set-cookie"].partition("; ")
    assert name == "__Secure-shop_device=dt_first"
    assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/v1/sessions"} < set(attributes.split("; "))
    await api.post("/v1/sessions", json=login, headers={"cookie": name})
    assert backend.last("Login").device_token == "dt_first"
    await api.post("/v1/sessions", json={**login, "device_token": "dt_mine"}, headers={"cookie": name})
    assert backend.last("Login").device_token == "dt_mine"
    refreshed = await api.post("/v1/sessions/refresh", json={"refresh_token": "rt_1"})
    assert refreshed.json()["device_token"] is None
    assert "set-cookie" not in refreshed.headers


async def test_an_e_mail_moves_by_two_codes_and_shows_as_pending(api: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["UpdateUser"] = user(pending_email="countess@example.com")
    body = {"email": "countess@example.com", "current_password": "correct horse"}
    shown = (await api.patch("/v1/users/me", headers=CUSTOMER, json=body)).json()
    assert (shown["email"], shown["pending_email"]) == ("ada@example.com", "countess@example.com")
    assert backend.last("UpdateUser").current_password == "correct horse"
    for step, rpc in (("confirm", "ConfirmEmailChange"), ("undo", "UndoEmailChange")):
        answer = await api.post(f"/v1/email-changes/{step}", json={"token": "mt_1"})
        assert (answer.status_code, backend.last(rpc).token) == (204, "mt_1")


async def test_registering_passes_on_where_it_comes_from(api: httpx.AsyncClient, backend: Backend) -> None:
    body = {"email": "ada@example.com", "password": "correct horse", "name": "Ada"}
    assert (await api.post("/v1/users", json=body)).status_code == 201
    assert backend.last("Register").client_address == "192.0.2.1"


async def test_violations_of_an_address_name_the_requests_fields(api: httpx.AsyncClient, backend: Backend) -> None:
    backend.fails["AddAddress"] = invalid("No.", ("address.country", "must be a country"))
    body = {**new_order()["shipping_address"], "country": "XX"}
    answer = await api.post("/v1/users/me/addresses", headers=CUSTOMER, json=body)
    problem = assert_problem(answer, 400, "INVALID_ARGUMENT")
    assert problem["errors"] == [{"field": "country", "message": "must be a country"}]


async def test_personal_answers_are_kept_by_no_cache(api: httpx.AsyncClient) -> None:
    for path in ("/v1/users/me", "/v1/orders", f"/v1/products/{PRODUCT}"):
        answer = await api.get(path, headers=CUSTOMER)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_head_answers_like_get_without_a_body(api: httpx.AsyncClient) -> None:
    answer = await api.head(f"/v1/products/{PRODUCT}")
    assert (answer.status_code, answer.headers["etag"]) == (200, '"3"')


async def test_keys_are_fetched_once_and_anew_after_a_rotation(api: httpx.AsyncClient, backend: Backend) -> None:
    for _ in range(3):
        assert (await api.get("/.well-known/jwks.json")).json()["keys"][0]["kid"] == "k1"
    assert [name for name, _, _ in backend.calls].count("GetJwks") == 1
    await api.post("/v1/admin/keys/rotate", headers=BOSS)
    await api.get("/.well-known/jwks.json")
    assert [name for name, _, _ in backend.calls].count("GetJwks") == 2


async def test_dead_letters_are_discarded_by_type_and_status(api: httpx.AsyncClient) -> None:
    path = "/v1/admin/dead-letters"
    assert (await api.delete(f"{path}?all=true", headers=BOSS)).json() == {"discarded": 1}
    assert_problem(await api.delete(path, headers=BOSS), 400, "FILTER_MISSING")
    assert_problem(await api.delete(f"{path}?status=replayed", headers=BOSS), 400, "FILTER_MISSING")
    assert_problem(await api.delete(f"{path}?all=true&type=a", headers=BOSS), 400, "FILTER_MISSING")
    assert_problem(await api.delete(f"{path}?all=1", headers=BOSS), 400, "INVALID_ARGUMENT")
    assert (await api.delete(f"{path}?type=shop.order.shipped.v1", headers=BOSS)).json() == {"discarded": 0}
    assert (await api.delete(f"{path}?status=replayed&all=true", headers=BOSS)).json() == {"discarded": 0}
    assert (await api.delete(f"{path}?status=all", headers=BOSS)).status_code == 400
    assert (await api.delete(path, headers=CUSTOMER)).status_code == 403


async def test_an_unknown_dead_letter_is_not_found(api: httpx.AsyncClient) -> None:
    path = f"/v1/admin/dead-letters/{LETTER[:-1]}1"
    assert_problem(await api.get(path, headers=BOSS), 404, "DEAD_LETTER_NOT_FOUND")
    found = await api.get("/v1/admin/dead-letters?type=shop.order.shipped.v1", headers=BOSS)
    assert found.json() == {"items": [], "next_cursor": None}


async def test_reads_are_retried_and_writes_are_not(api: httpx.AsyncClient, backend: Backend) -> None:
    from functions.runtime.errors import unavailable

    backend.fails["GetOrder"] = backend.fails["ShipOrder"] = unavailable("BUSY", "Busy.")
    await api.get(f"/v1/orders/{ORDER}", headers=CUSTOMER)
    await api.post(f"/v1/orders/{ORDER}/ship", headers=BOSS)
    names = [name for name, _, _ in backend.calls]
    assert names.count("GetOrder") == 3
    assert names.count("ShipOrder") == 1


async def test_a_request_and_the_calls_that_it_makes_are_one_trace(api: httpx.AsyncClient, backend: Backend) -> None:
    exporter = MemoryExporter()
    provider = export.provide("gateway", exporter)
    tracing.install(provider)
    try:
        await api.get(f"/v1/products/{PRODUCT}", headers={"traceparent": f"00-{HEX}-00f067aa0ba902b7-01"})
    finally:
        tracing.install(None)
        provider.shutdown()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    edge = spans["GET /v1/products/{product_id}"]
    assert edge.attributes is not None
    assert edge.attributes["http.response.status_code"] == 200
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {HEX}
    client = next(span for span in spans.values() if span.kind is SpanKind.CLIENT)
    assert client.parent is not None
    assert client.parent.span_id == edge.context.span_id
    assert backend.metadata[-1]["traceparent"].split("-")[2] == f"{client.context.span_id:016x}"


async def test_an_address_is_passed_on_as_it_was_written_for_order_and_book_alike(
    api: httpx.AsyncClient, backend: Backend
) -> None:
    hong_kong = {"name": "山田　太郎", "line1": "1 Peak Road", "state": "Hong Kong Island", "country": "HK"}
    line = {"product_id": PRODUCT, "quantity": 1}
    order = {"lines": [line], "shipping_address": hong_kong, "payment_token": "tok_ok"}
    assert (await api.post("/v1/orders", headers=CUSTOMER, json=order)).status_code == 201
    assert (await api.post("/v1/users/me/addresses", headers=CUSTOMER, json=hong_kong)).status_code == 201
    for address in (backend.last("PlaceOrder").shipping_address, backend.last("AddAddress").address):
        assert (address.name, address.city, address.state, address.postal_code) == (
            "山田　太郎",
            "",
            "Hong Kong Island",
            "",
        )


async def test_a_product_may_be_free_and_a_refund_may_not(api: httpx.AsyncClient, backend: Backend) -> None:
    nothing = {"amount": 0, "currency": "EUR"}
    body = {"sku": "GIFT-1", "name": "Gift", "category": "kitchen", "price": nothing}
    assert (await api.post("/v1/products", headers=BOSS, json=body)).status_code == 201
    assert backend.last("CreateProduct").price.amount == 0
    refund = await api.post(f"/v1/payments/{PAYMENT}/refunds", headers=BOSS, json={"amount": nothing})
    assert_problem(refund, 400, "INVALID_ARGUMENT")


async def test_stock_is_adjusted_under_a_key_and_its_ledger_read(api: httpx.AsyncClient, backend: Backend) -> None:
    path = f"/v1/products/{PRODUCT}/stock/adjustments"
    adjusted = await api.post(
        path, headers={**BOSS, "idempotency-key": "delivery-17"}, json={"delta": 5, "reason": " Delivery 17 "}
    )
    assert adjusted.status_code == 201
    assert adjusted.json() == {
        "id": "adj_" + "1" * 32,
        "product_id": PRODUCT,
        "kind": "ADJUSTMENT",
        "delta": 5,
        "on_hand": 55,
        "reason": "Delivery 17",
        "adjusted_by": USER,
        "created_at": "2030-01-01T12:00:00.000001Z",
    }
    wanted: products_pb2.AdjustStockRequest = backend.last("AdjustStock")
    assert (wanted.delta, wanted.reason, wanted.idempotency_key) == (5, "Delivery 17", "delivery-17")

    page = await api.get(path, headers=BOSS, params={"limit": 1, "cursor": "abc"})
    assert page.json() == {"items": [adjusted.json()], "next_cursor": "next"}
    listed: products_pb2.ListStockAdjustmentsRequest = backend.last("ListStockAdjustments")
    assert (listed.limit, listed.cursor) == (1, "abc")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"delta": 1.5, "reason": "x"}, "delta"),
        ({"delta": 10**10, "reason": "x"}, "delta"),
        ({"delta": 1, "reason": ""}, "reason"),
        ({"delta": 1, "reason": "a\nb"}, "reason"),
        ({"delta": 1}, "reason"),
    ],
)
async def test_an_adjustment_at_fault_is_refused_by_its_field(
    api: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await api.post(f"/v1/products/{PRODUCT}/stock/adjustments", headers=BOSS, json=body)
    problem = assert_problem(answer, 400, "INVALID_ARGUMENT")
    assert [error["field"] for error in problem["errors"]] == [field]
