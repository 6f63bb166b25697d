"""A customer who has something to lose; a stranger, the administrator, a part of the platform, and nobody."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from events.service_keys import PrivateKey
from functions.runtime.clock import SystemClock
from functions.runtime.tokens import ServiceTokens
from knative.local.demo.shop import ADDRESS, Person, Shop
from knative.local.demo.stories import eventually
from tests.e2e.platform import LocalPlatform, Platform

ISSUER, AUDIENCE = "https://shop.local", "shop"
STREET = "7 Secret Lane"
PRIVATE_ADDRESS = {**ADDRESS, "line1": STREET}
NOBODYS = "users"
"""A part of the platform that no other part lets in for anything."""
CALLERS = ("anonymous", NOBODYS, "stranger", "customer", "admin")


@dataclass
class Callers:
    """`people` by caller, `ids` by the names that paths and messages give them; `private` is what must not leak."""

    platform: Platform
    people: dict[str, Person]
    ids: dict[str, str] = field(default_factory=dict)

    async def log_in_again(self) -> None:
        """Give everybody a session that began this moment."""
        async with Shop(self.platform.base_url, self.platform.host) as shop:
            for name, person in self.people.items():
                self.people[name] = await shop.login(person.email, person.password, person.profile)

    @property
    def private(self) -> list[str]:
        """What only the customer and administrators may see."""
        return [self.people["customer"].email, STREET]

    def token(self, caller: str, callee: str = "gateway") -> str:
        """The bearer token of a caller, of a service by its name for its calls of `callee`; empty for nobody's."""
        if caller == "anonymous":
            return ""
        if caller in self.people:
            return str(self.people[caller].tokens["access_token"])
        return ServiceTokens(self.key_of(caller), ISSUER, SystemClock()).token(callee)

    def key_of(self, service: str) -> PrivateKey:
        """The key that only this part of the platform has."""
        assert isinstance(self.platform, LocalPlatform)
        pem = Path(self.platform.folder, "secrets", f"service-key-{service}", "service.pem").read_text()
        return PrivateKey.from_pem(service, pem)

    def grpc_address(self, domain: str) -> str:
        """host:port of a domain's gRPC server."""
        assert isinstance(self.platform, LocalPlatform)
        return str(self.platform.state()["parts"][domain]["grpc"])


async def prepare(platform: Platform) -> Callers:
    """Everybody, and what belongs to the customer."""
    async with Shop(platform.base_url, platform.host) as shop:
        admin = await shop.login(platform.admin_email, platform.admin_password)
        people = {name: await shop.register(name.title()) for name in ("customer", "stranger")}
        callers = Callers(platform, {**people, "admin": admin})
        await replenish(callers)
        callers.ids |= await _belongings(shop, callers)
        return callers


async def replenish(callers: Callers) -> None:
    """Put in the place of what was deleted another of its kind: a product, an address, a person."""
    customer, admin = callers.people["customer"], callers.people["admin"]
    async with Shop(callers.platform.base_url, callers.platform.host) as shop:
        product = await shop.call("POST", "/v1/products", who=admin, json=product_body())
        await shop.call("PUT", f"/v1/products/{product['id']}/stock", who=admin, json={"on_hand": 100})
        kept = await shop.call("POST", "/v1/users/me/addresses", who=customer, json=PRIVATE_ADDRESS)
        callers.people["leaving"] = leaving = await shop.register("Leaving")
        callers.ids |= {"product_id": product["id"], "address_id": kept["id"], "leaving_id": leaving.id}


async def _belongings(shop: Shop, callers: Callers) -> dict[str, str]:
    """A paid and shipped order, so that nothing that is allowed changes it much."""
    customer, admin = callers.people["customer"], callers.people["admin"]
    order = await shop.call(
        "POST",
        "/v1/orders",
        who=customer,
        json={**order_body(callers.ids["product_id"]), "shipping_address": PRIVATE_ADDRESS},
        headers={"idempotency-key": uuid4().hex},
    )
    await shop.settled(customer, order["id"], status="CONFIRMED")
    await shop.call("POST", f"/v1/orders/{order['id']}/ship", who=admin)

    messages: list[dict[str, Any]] = []

    async def told() -> bool:
        messages[:] = (await shop.call("GET", "/v1/notifications", who=customer))["items"]
        return bool(messages)

    await eventually(told, "a message to the customer")
    return {
        "order_id": order["id"],
        "payment_id": "pay_" + order["id"][4:],
        "user_id": customer.id,
        "notification_id": messages[0]["id"],
        "dead_letter_id": "none",
    }


def product_body() -> dict[str, Any]:
    """A product that is not there yet."""
    price = {"amount": 1250, "currency": "EUR"}
    return {"sku": f"SEC-{uuid4().hex[:12]}", "name": "Teapot", "category": "kitchen", "price": price}


def order_body(product_id: str) -> dict[str, Any]:
    """One of it."""
    line = {"product_id": product_id, "quantity": 1}
    return {"lines": [line], "shipping_address": ADDRESS, "payment_token": "tok_ok"}
