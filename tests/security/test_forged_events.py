"""Events that their source did not send: nobody confirms, refunds or erases by posting one, wherever it is posted."""

from __future__ import annotations

from uuid import uuid4

import pytest

from events.catalog import SUBSCRIBERS, Money, OrderCancelled, Payload, PaymentCaptured, UserDeleted
from events.service_keys import PrivateKey
from functions.runtime.ids import uuid7
from functions.runtime.tests.support import posted
from knative.local.demo.shop import Person, Shop
from knative.local.demo.stories import eventually
from tests.e2e.platform import LocalPlatform
from tests.security.callers import Callers, order_body
from tests.security.test_events import event_url, post
from tests.signing import local_key

FORGERS = ("unsigned", "a stranger's key", "another service's key")


def forged(local: LocalPlatform, event: Payload, forger: str) -> tuple[dict[str, str], bytes]:
    """The event, as the forger makes it: all is right but the signature."""
    source = event.SOURCE[1:]
    other = "products" if source != "products" else "notifications"  # a part that was taken over
    key = local_key(local.folder, other) if forger == "another service's key" else PrivateKey.generate(source)
    headers, data = posted(event, uuid7(), key)
    if forger == "unsigned":
        del headers["ce-signature"]
    return headers, data


async def attack(shop: Shop, local: LocalPlatform, admin: Person, event: Payload, forger: str) -> None:
    """Post it to every subscriber, and to the broker; return when all have refused it."""
    for domain in SUBSCRIBERS[type(event)]:
        headers, data = forged(local, event, forger)
        assert await post(event_url(local, domain), headers, data) == 403, domain
    headers, data = forged(local, event, forger)
    assert await post(f"{event_url(local, 'broker')}/shop/default", headers, data) == 202

    async def refused() -> bool:
        letters = await shop.all(f"/v1/admin/dead-letters?type={event.TYPE}", admin)
        reasons = [letter["error"] for letter in letters if letter["event_id"] == headers["ce-id"]]
        assert all("EVENT_UNSIGNED" in text or "EVENT_SIGN" in text for text in reasons), reasons
        return len(reasons) == len(SUBSCRIBERS[type(event)])

    await eventually(refused, "a dead letter of each subscriber")


@pytest.mark.parametrize("forger", FORGERS)
async def test_a_forged_payment_confirms_no_order(
    shop: Shop, callers: Callers, local: LocalPlatform, admin: Person, forger: str
) -> None:
    body = {**order_body(callers.ids["product_id"]), "payment_token": "tok_declined"}
    key = {"idempotency-key": uuid4().hex}
    customer = callers.people["customer"]
    order = await shop.call("POST", "/v1/orders", who=customer, json=body, headers=key)
    total = Money(order["total"]["amount"], order["total"]["currency"])
    paid = PaymentCaptured(order_id=order["id"], payment_id="pay_" + order["id"][4:], amount=total)
    await attack(shop, local, admin, paid, forger)
    ended = await shop.settled(customer, order["id"], status="CANCELLED")
    assert "CONFIRMED" not in {entry["status"] for entry in ended["timeline"]}


@pytest.mark.parametrize("forger", FORGERS)
async def test_a_forged_cancellation_refunds_nothing(
    shop: Shop, callers: Callers, local: LocalPlatform, admin: Person, forger: str
) -> None:
    order_id, customer = callers.ids["order_id"], callers.people["customer"]
    stock = await shop.stock(callers.ids["product_id"])
    gone = OrderCancelled(order_id=order_id, user_id=customer.id, reason="CUSTOMER_REQUEST")
    await attack(shop, local, admin, gone, forger)
    payment = await shop.call("GET", f"/v1/orders/{order_id}/payment", who=customer)
    assert (payment["status"], payment["refunded"]["amount"]) == ("CAPTURED", 0)
    assert await shop.stock(callers.ids["product_id"]) == stock


@pytest.mark.parametrize("forger", FORGERS)
async def test_a_forged_deletion_erases_nobody(
    shop: Shop, callers: Callers, local: LocalPlatform, admin: Person, forger: str
) -> None:
    customer = callers.people["customer"]
    before = await shop.call("GET", f"/v1/orders/{callers.ids['order_id']}", who=customer)
    await attack(shop, local, admin, UserDeleted(user_id=customer.id), forger)
    assert await shop.call("GET", f"/v1/orders/{callers.ids['order_id']}", who=customer) == before
    assert (await shop.call("GET", "/v1/notifications", who=customer))["items"]
    assert (await shop.call("GET", "/v1/users/me", who=customer))["id"] == customer.id
