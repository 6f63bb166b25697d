"""Who may do what, route by route. What the gateway serves and this table must be the same list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from knative.local.demo.shop import ADDRESS, Shop
from tests.security.callers import CALLERS, NOBODYS, Callers, order_body, product_body, replenish

EVERYBODY = frozenset(CALLERS)
CATALOGUE = EVERYBODY - {NOBODYS}  # no token is needed, but a part of the platform has no business at the edge
PEOPLE = frozenset({"stranger", "customer", "admin"})
OWNER = frozenset({"customer", "admin"})
MINE = frozenset({"customer"})
ADMIN = frozenset({"admin"})
LEAVING = frozenset({"leaving"})  # may, and is not the same afterwards

ROUTES: Mapping[str, frozenset[str]] = {
    "GET /v1/products": CATALOGUE,
    "POST /v1/products": ADMIN,
    "GET /v1/products/{product_id}": CATALOGUE,
    "PATCH /v1/products/{product_id}": ADMIN,
    "DELETE /v1/products/{product_id}": ADMIN,
    "GET /v1/products/{product_id}/stock": CATALOGUE,
    "PUT /v1/products/{product_id}/stock": ADMIN,
    "GET /v1/products/{product_id}/stock/adjustments": ADMIN,
    "POST /v1/products/{product_id}/stock/adjustments": ADMIN,
    "GET /v1/categories": CATALOGUE,
    "GET /v1/orders": PEOPLE,
    "POST /v1/orders": PEOPLE,
    "GET /v1/orders/{order_id}": OWNER,
    "POST /v1/orders/{order_id}/cancel": OWNER,
    "POST /v1/orders/{order_id}/ship": ADMIN,
    "POST /v1/orders/{order_id}/deliver": ADMIN,
    "POST /v1/orders/{order_id}/stream-tickets": OWNER,
    "GET /v1/orders/{order_id}/stream": OWNER,
    "GET /v1/orders/{order_id}/payment": OWNER,
    "GET /v1/payments/{payment_id}/refunds": OWNER,
    "POST /v1/payments/{payment_id}/refunds": ADMIN,
    "POST /v1/users": EVERYBODY,
    "GET /v1/users/me": PEOPLE,
    "GET /v1/users/me/export": PEOPLE,
    "PATCH /v1/users/me": PEOPLE,
    "PUT /v1/users/me/password": LEAVING,
    "DELETE /v1/users/me": LEAVING,
    "POST /v1/users/me/email-verification": PEOPLE,
    "POST /v1/email-verifications": EVERYBODY,
    "POST /v1/email-changes/confirm": EVERYBODY,
    "POST /v1/email-changes/undo": EVERYBODY,
    "POST /v1/password-resets": EVERYBODY,
    "POST /v1/password-resets/confirm": EVERYBODY,
    "GET /v1/users/me/addresses": PEOPLE,
    "POST /v1/users/me/addresses": PEOPLE,
    "PUT /v1/users/me/addresses/{address_id}": MINE,
    "DELETE /v1/users/me/addresses/{address_id}": MINE,
    "POST /v1/sessions": EVERYBODY,
    "DELETE /v1/sessions": EVERYBODY,
    "POST /v1/sessions/logout": EVERYBODY,
    "POST /v1/sessions/refresh": EVERYBODY,
    "GET /v1/notifications": PEOPLE,
    "GET /v1/notifications/{notification_id}": OWNER,
    "GET /v1/notifications/preferences": PEOPLE,
    "PUT /v1/notifications/preferences": PEOPLE,
    "GET /v1/admin/orders": ADMIN,
    "GET /v1/admin/users": ADMIN,
    "GET /v1/admin/users/{user_id}": ADMIN,
    "PUT /v1/admin/users/{leaving_id}/roles": ADMIN,
    "POST /v1/admin/keys/rotate": ADMIN,
    "GET /v1/admin/payments/ledger": ADMIN,
    "GET /v1/admin/dead-letters": ADMIN,
    "DELETE /v1/admin/dead-letters": ADMIN,
    "POST /v1/admin/dead-letters/replay": ADMIN,
    "GET /v1/admin/dead-letters/{dead_letter_id}": ADMIN,
    "POST /v1/admin/dead-letters/{dead_letter_id}/replay": ADMIN,
    "DELETE /v1/admin/dead-letters/{dead_letter_id}": ADMIN,
    "POST /v1/webhooks/stripe": EVERYBODY,  # by signature or shared secret; closed where none is configured
    "POST /v1/webhooks/ses": EVERYBODY,
    "GET /.well-known/jwks.json": EVERYBODY,
}
# Of a login that is older than five minutes these want the password.
AFTER_A_LOGIN = {"GET /v1/users/me/export", "DELETE /v1/users/me", "PUT /v1/admin/users/{leaving_id}/roles"}
# These belong to somebody: whoever may not see them must not learn that they exist.
HIDDEN = {"order_id", "payment_id", "address_id", "notification_id"}


def body_of(route: str, callers: Callers) -> Any:
    """A body that would do what the route is for, if it were let in."""
    leaving = callers.people["leaving"]
    bodies: dict[str, Any] = {
        "POST /v1/products": product_body(),
        "PATCH /v1/products/{product_id}": {"name": "Teapot"},
        "PUT /v1/products/{product_id}/stock": {"on_hand": 100},
        "POST /v1/products/{product_id}/stock/adjustments": {"delta": 1, "reason": "Found"},
        "POST /v1/orders": order_body(callers.ids["product_id"]),
        "POST /v1/orders/{order_id}/cancel": {"reason": "MINE"},
        "POST /v1/payments/{payment_id}/refunds": {"amount": {"amount": 1, "currency": "EUR"}},
        "POST /v1/users": {"email": f"{uuid4().hex}@example.com", "password": uuid4().hex, "name": "Eve"},
        "PATCH /v1/users/me": {"name": "Somebody"},
        "PUT /v1/users/me/password": {"current_password": leaving.password, "new_password": uuid4().hex},
        "POST /v1/email-verifications": {"token": "none"},
        "POST /v1/email-changes/confirm": {"token": "none"},
        "POST /v1/email-changes/undo": {"token": "none"},
        "POST /v1/password-resets": {"email": leaving.email},
        "POST /v1/password-resets/confirm": {"token": "none", "new_password": uuid4().hex},
        "POST /v1/users/me/addresses": ADDRESS,
        "PUT /v1/users/me/addresses/{address_id}": ADDRESS,
        "POST /v1/sessions": {"email": leaving.email, "password": leaving.password},
        "DELETE /v1/sessions": {"refresh_token": "none"},
        "POST /v1/sessions/logout": {"refresh_token": "none"},
        "POST /v1/sessions/refresh": {"refresh_token": "none"},
        "PUT /v1/notifications/preferences": {"email_enabled": True},
        "PUT /v1/admin/users/{leaving_id}/roles": {"roles": ["customer"]},
        "POST /v1/webhooks/stripe": {"id": "evt_1"},
        "POST /v1/webhooks/ses": {"id": "1"},
    }
    return bodies.get(route)


async def ask(callers: Callers, route: str, caller: str) -> tuple[int, str]:
    """The status, and all that the caller gets to read."""
    method, path = route.split(" ")
    token = callers.token(caller)
    headers = {"idempotency-key": uuid4().hex} | ({"authorization": f"Bearer {token}"} if token else {})
    url = callers.platform.base_url + path.format(**callers.ids)
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, json=body_of(route, callers), headers=headers) as answer,
    ):
        streaming = answer.status == 200 and answer.content_type == "text/event-stream"
        text = "" if streaming else await answer.text()
        return answer.status, f"{dict(answer.headers)} {text}"


async def test_every_route_has_its_row_and_every_row_its_route(shop: Shop) -> None:
    document = await shop.call("GET", "/openapi.json")
    served = {f"{m.upper()} {path}" for path, operations in document["paths"].items() for m in operations}
    rows = {route.replace("{leaving_id}", "{user_id}") for route in ROUTES}
    assert served - rows == set(), "say in ROUTES who may call these"
    assert rows - served == set(), "these are not served any more"


@pytest.mark.parametrize("route", ROUTES)
async def test_a_route_lets_in_whom_it_should_and_tells_others_nothing(callers: Callers, route: str) -> None:
    if route in AFTER_A_LOGIN:
        await callers.log_in_again()
    for caller in CALLERS:
        if caller in ROUTES[route] or (ROUTES[route] is LEAVING and caller in PEOPLE):
            continue
        status, told = await ask(callers, route, caller)
        if caller in ("anonymous", NOBODYS):
            assert status == 401, f"{caller}: {told}"
        elif any("{" + name + "}" in route for name in HIDDEN) and ROUTES[route] is not ADMIN:
            assert status == 404, f"{caller}: {told}"
        else:
            assert status == 403, f"{caller}: {told}"
        assert not [secret for secret in callers.private if secret in told], f"{caller}: {told}"
    for caller in sorted(ROUTES[route]):  # the administrator first: what the customer removes is then still there
        status, told = await ask(callers, route, caller)
        open_to_all = ROUTES[route] is EVERYBODY
        assert status < 500
        assert status not in (403, *(() if open_to_all else (401,))), f"{caller}: {told}"
        absent = "{dead_letter_id}" in route or "/webhooks/" in route
        assert status != 404 or absent or caller == NOBODYS, f"{caller}: {told}"
        if route.startswith("DELETE") or ROUTES[route] is LEAVING or "{leaving_id}" in route:
            await replenish(callers)
