"""A forgotten password and an unverified address, by codes from the mailbox that development shows."""

import re
from uuid import uuid4

from knative.local.demo.shop import Person, Shop
from knative.local.demo.stories import eventually
from tests.e2e.platform import LocalPlatform


async def code(shop: Shop, who: Person, template: str) -> str:
    """What the mail of this template says."""
    found: list[str] = []

    async def arrived() -> bool:
        for line in await shop.all("/v1/notifications", who):
            if line["template"] == template:
                mail = await shop.call("GET", f"/v1/notifications/{line['id']}", who=who)
                found[:] = re.findall(r"mt_[\w-]{64}", mail["body"])
        return bool(found)

    await eventually(arrived, f"a mail {template}")
    return found[0]


async def test_a_forgotten_password_is_replaced_by_the_mailed_code(
    shop: Shop, customer: Person, local: LocalPlatform
) -> None:
    for email in (customer.email, f"{uuid4().hex}@example.com"):
        status, body, _ = await shop.raw("POST", "/v1/password-resets", json={"email": email})
        assert (status, body) == (204, ""), "known or unknown, the answer is the same"
    token = await code(shop, customer, "password_reset")
    new = f"new {uuid4().hex}"
    reset = {"token": token, "new_password": new}
    assert (await shop.raw("POST", "/v1/password-resets/confirm", json=reset))[0] == 204
    status, problem, _ = await shop.raw("POST", "/v1/password-resets/confirm", json=reset)
    assert (status, problem["reason"]) == (400, "MAILED_TOKEN_INVALID")
    old = {"email": customer.email, "password": customer.password}
    assert (await shop.raw("POST", "/v1/sessions", json=old))[0] == 401
    again = await shop.login(customer.email, new)
    assert (await shop.call("GET", "/v1/users/me", who=again))["email_verified"]


async def test_an_address_is_verified_by_the_mailed_code(shop: Shop, customer: Person, local: LocalPlatform) -> None:
    assert not (await shop.call("GET", "/v1/users/me", who=customer))["email_verified"]
    assert (await shop.raw("POST", "/v1/users/me/email-verification", who=customer))[0] == 204
    token = await code(shop, customer, "email_verification")
    assert (await shop.raw("POST", "/v1/email-verifications", json={"token": token}))[0] == 204
    assert (await shop.call("GET", "/v1/users/me", who=customer))["email_verified"]


async def test_an_e_mail_moves_by_one_code_and_comes_back_by_another(
    shop: Shop, customer: Person, local: LocalPlatform
) -> None:
    moved = f"{uuid4().hex}@example.com"
    pending = await shop.call("PATCH", "/v1/users/me", who=customer, json={"email": moved})
    assert (pending["email"], pending["pending_email"]) == (customer.email, moved)
    confirm = {"token": await code(shop, customer, "email_change")}
    assert (await shop.raw("POST", "/v1/email-changes/confirm", json=confirm))[0] == 204
    thief = await shop.login(moved, customer.password)
    assert thief.id == customer.id
    undo = {"token": await code(shop, thief, "email_changed")}
    assert (await shop.raw("POST", "/v1/email-changes/undo", json=undo))[0] == 204
    assert (await shop.raw("POST", "/v1/email-changes/undo", json=undo))[0] == 400
    for email in (moved, customer.email):
        keys = {"email": email, "password": customer.password}
        assert (await shop.raw("POST", "/v1/sessions", json=keys))[0] == 401
    refresh = {"refresh_token": thief.tokens["refresh_token"]}
    assert (await shop.raw("POST", "/v1/sessions/refresh", json=refresh))[0] == 401
