"""Requests that are repeated with the same idempotency key until they are answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import aiohttp

from events.catalog import OrderPlaced
from events.publisher import dataschema
from knative.local.demo.shop import Person, Refused, Shop
from tests.crash.platform import Mortal
from tests.signing import local_key, signed

PRICE = 250
PATIENCE = 60.0


async def patiently(
    shop: Shop, method: str, path: str, *, done: Sequence[int] = (), passing: Sequence[int] = (), **how: Any
) -> Any:
    """Send a request until it is answered.

    `done` are statuses of refusals after an earlier attempt succeeded: the result is None. `passing` are statuses of
    refusals after which to try again.
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await shop.patiently(method, path, seconds=PATIENCE, **how)
            except Refused as refused:
                if refused.status in done:
                    return None
                if refused.status not in passing:
                    raise
            await asyncio.sleep(0.2)


async def register(shop: Shop, email: str) -> Person:
    """Register a new customer, and log them in."""
    password = f"Analytical-{uuid4().hex[:12]}"
    wanted = {"email": email, "password": password, "name": "Ada Lovelace"}
    await patiently(shop, "POST", "/v1/users", json=wanted, done=(409,))
    return await login(shop, email, password)


async def login(shop: Shop, email: str, password: str) -> Person:
    """Log in, and return the person with tokens and profile."""
    tokens = await patiently(shop, "POST", "/v1/sessions", json={"email": email, "password": password})
    person = Person(email, password, {}, tokens)
    person.profile = await patiently(shop, "GET", "/v1/users/me", who=person)
    return person


async def new_product(shop: Shop, admin: Person, pieces: int) -> str:
    """Create a product with `pieces` in stock, and return its id."""
    sku = f"CRASH-{uuid4().hex[:12]}"
    body = {
        "sku": sku,
        "name": f"Target {sku}",
        "category": "range",
        "price": {"amount": PRICE, "currency": "EUR"},
    }
    made = await patiently(shop, "POST", "/v1/products", who=admin, json=body, done=(409,))
    if made is None:
        found = await patiently(shop, "GET", f"/v1/products?q={sku}", who=admin)
        made = next(product for product in found["items"] if product["sku"] == sku)
    stock = {"on_hand": pieces}
    await patiently(shop, "PUT", f"/v1/products/{made['id']}/stock", who=admin, json=stock)
    return str(made["id"])


async def publish(platform: Mortal, event_id: str, data: bytes) -> None:
    """Send an order.placed with this id to the broker until the broker acknowledges it."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-type": OrderPlaced.TYPE,
        "ce-source": OrderPlaced.SOURCE,
        "ce-dataschema": dataschema(OrderPlaced.TYPE),
        "content-type": "application/json",
    }
    headers = signed(headers, data, local_key(platform.data.folder, "orders"))
    async with aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.post(platform.url("broker"), data=data, headers=headers) as answer:
                    if answer.status == 202:
                        return
            await asyncio.sleep(0.1)
