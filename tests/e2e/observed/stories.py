"""Orders that leave traces."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from knative.local.demo.shop import ADDRESS, Person, Shop
from tests.e2e.platform import Platform


@dataclass(frozen=True)
class Story:
    """The trace that the customer began, and the order in its final state."""

    trace_id: str
    customer: Person
    order: dict[str, Any]


async def stocked(shop: Shop, platform: Platform) -> str:
    """Create a product with stock, and return its id."""
    admin = await shop.login(platform.admin_email, platform.admin_password)
    body = {
        "sku": f"OBSERVED-{uuid4().hex[:12]}",
        "name": "Watched pot",
        "description": "Never boils.",
        "category": "kitchen",
        "price": {"amount": 1250, "currency": "EUR"},
        "image_urls": [],
        "active": True,
    }
    product = await shop.call("POST", "/v1/products", who=admin, json=body)
    await shop.call("PUT", f"/v1/products/{product['id']}/stock", who=admin, json={"on_hand": 10})
    return str(product["id"])


async def place(shop: Shop, who: Person, product: str, token: str, **headers: str) -> dict[str, Any]:
    """Order one piece with these headers."""
    body = {
        "lines": [{"product_id": product, "quantity": 1}],
        "shipping_address": ADDRESS,
        "payment_token": token,
    }
    sent = {"idempotency-key": uuid4().hex, **headers}
    placed: dict[str, Any] = await shop.call("POST", "/v1/orders", who=who, json=body, headers=sent)
    return placed


async def order(platform: Platform, token: str, sampled: bool = True) -> Story:
    """Order as a new customer within a trace of their own, and wait for the order's end."""
    trace_id = secrets.token_hex(16)
    async with Shop(platform.base_url) as shop:
        product = await stocked(shop, platform)
        who = await shop.register()
        traceparent = f"00-{trace_id}-{secrets.token_hex(8)}-{'01' if sampled else '00'}"
        placed = await place(shop, who, product, token, traceparent=traceparent)
        return Story(trace_id, who, await shop.settled(who, placed["id"]))


async def then(platform: Platform, story: Story, path: str, body: dict[str, Any], admin: bool = False) -> Story:
    """Send a further POST as the customer or an administrator, within a trace of its own."""
    trace_id = secrets.token_hex(16)
    async with Shop(platform.base_url) as shop:
        if "{payment}" in path:
            paid = await shop.call("GET", f"/v1/orders/{story.order['id']}/payment", who=story.customer)
            path = path.replace("{payment}", paid["id"])
        who = await shop.login(platform.admin_email, platform.admin_password) if admin else story.customer
        sent = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01", "idempotency-key": uuid4().hex}
        await shop.call("POST", path, who=who, json=body, headers=sent)
    return Story(trace_id, story.customer, story.order)
