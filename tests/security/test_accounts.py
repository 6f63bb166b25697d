"""Who has an account is nobody's business: registering tells as little as logging in and resetting a password do."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from knative.local.demo.shop import Person, Shop
from tests.e2e.platform import LocalPlatform
from tests.e2e.test_recovery import code

OWN = {"id", "email", "created_at", "updated_at"}
TIMES = {"date", "x-correlation-id", "content-length"}


async def register(shop: Shop, email: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    body = {"email": email, "password": uuid4().hex, "name": "Eve"}
    status, answer, headers = await shop.raw("POST", "/v1/users", json=body)
    assert len(answer["id"]) == 36
    assert answer["email"] == email
    shown = {name: value for name, value in answer.items() if name not in OWN}
    return status, shown, {name: value for name, value in headers.items() if name.lower() not in TIMES}


async def test_registering_tells_nobody_who_has_an_account(shop: Shop, customer: Person) -> None:
    known, unknown = await register(shop, customer.email), await register(shop, f"{uuid4().hex}@example.com")
    assert known == unknown
    assert known[0] == 201
    again = await shop.login(customer.email, customer.password)
    assert again.id == customer.id, "nothing has changed"


async def test_who_has_the_address_is_told_and_may_set_a_new_password(
    shop: Shop, customer: Person, local: LocalPlatform
) -> None:
    await register(shop, customer.email)
    new = {"token": await code(shop, customer, "already_registered"), "new_password": f"new {uuid4().hex}"}
    assert (await shop.raw("POST", "/v1/password-resets/confirm", json=new))[0] == 204
    assert (await shop.login(customer.email, new["new_password"])).id == customer.id


async def test_a_stranger_does_not_lock_a_device_out_that_logged_in_before(shop: Shop, customer: Person) -> None:
    wrong = {"email": customer.email, "password": "a stranger's guess"}
    for _ in range(5):
        assert (await shop.raw("POST", "/v1/sessions", json=wrong))[0] == 401
    right = {"email": customer.email, "password": customer.password}
    assert (await shop.raw("POST", "/v1/sessions", json=right))[0] == 429
    known = {**right, "device_token": customer.tokens["device_token"]}
    assert (await shop.raw("POST", "/v1/sessions", json=known))[0] == 200
