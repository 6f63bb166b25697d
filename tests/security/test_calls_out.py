"""No address that comes from outside is ever called: whatever field or header it stands in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from events.catalog import SweepDue, UserRegistered
from functions.runtime.ids import new_id
from knative.local.demo.shop import ADDRESS, Person, Shop
from tests.e2e.platform import LocalPlatform
from tests.security.callers import Callers, product_body
from tests.security.forgeries import Forger
from tests.security.test_events import event, event_url, post
from tests.security.test_tokens import at_the_gateway, at_the_services

HEADERS = (
    "host",
    "origin",
    "referer",
    "x-forwarded-host",
    "x-original-url",
    "x-callback-url",
    "destination",
    "link",
)


@dataclass
class Listener:
    """Who waits at `url` for the platform to call."""

    url: str = ""
    calls: list[bytes] = field(default_factory=list)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()

    async def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener.calls.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(called, "127.0.0.1", 0)
    listener.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/called"
    yield listener
    server.close()
    await server.wait_closed()


async def bait(shop: Shop, callers: Callers, customer: Person, url: str) -> None:
    """The address in every field of the API that takes a text, and in headers that servers are known to follow."""
    admin = callers.people["admin"]
    body = {**product_body(), "image_urls": [url], "name": url, "description": url}
    status, product, _ = await shop.raw("POST", "/v1/products", who=admin, json=body)
    if status == 400:  # only https is taken
        body["image_urls"] = [url.replace("http:", "https:")]
        product = await shop.call("POST", "/v1/products", who=admin, json=body)
    await shop.call("PUT", f"/v1/products/{product['id']}/stock", who=admin, json={"on_hand": 9})
    await shop.call("GET", f"/v1/products/{product['id']}")
    await shop.call("PATCH", "/v1/users/me", who=customer, json={"name": url})
    place = {**ADDRESS, "name": url, "line1": url, "city": url}
    await shop.call("POST", "/v1/users/me/addresses", who=customer, json=place)
    line = {"product_id": product["id"], "quantity": 1}
    order = {"lines": [line], "shipping_address": place, "payment_token": "tok_ok"}
    key = {"idempotency-key": url}
    placed = await shop.call("POST", "/v1/orders", who=customer, json=order, headers=key)
    await shop.settled(customer, placed["id"], status="CONFIRMED")
    await shop.raw("POST", f"/v1/orders/{placed['id']}/cancel", who=customer, json={"reason": url})
    await shop.raw("POST", "/v1/orders", who=customer, json={**order, "payment_token": url})
    await shop.raw("POST", "/v1/users", json={"email": f"a@{url[7:]}", "password": uuid4().hex, "name": url})
    for hook in ("stripe", "ses"):
        notice = {"Type": "SubscriptionConfirmation", "SubscribeURL": url, "SigningCertURL": url}
        await shop.raw("POST", f"/v1/webhooks/{hook}", json=notice)
    for header in HEADERS:
        await shop.raw("GET", "/v1/products", headers={header: url})


async def test_no_address_from_outside_is_ever_called(
    shop: Shop, callers: Callers, customer: Person, local: LocalPlatform, listener: Listener
) -> None:
    await bait(shop, callers, customer, listener.url)
    forger = Forger(callers, local.folder)
    for header in ("jku", "x5u", "kid", "iss"):
        token = forger.signed({header: listener.url}, iss=listener.url)
        assert await at_the_gateway(callers, token) == 401
        await at_the_services(callers, {header: token})
    told = json.dumps({"user_id": new_id("usr")}).encode()
    for attribute in ("ce-dataschema", "ce-replyto", "ce-callback", "reply-to"):
        await post(
            f"{event_url(local, 'broker')}/shop/default",
            event(UserRegistered, **{attribute: listener.url}),
            told,
        )
    for domain in ("users", "orders", "products", "payments", "notifications"):
        assert await post(event_url(local, domain), event(SweepDue), b"{}") == 204  # whatever was put off is done now

    assert listener.calls == []
    _, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.split(":")[2].partition("/")[0]))
    writer.write_eof()
    async with asyncio.timeout(5):
        while not listener.calls:  # noqa: ASYNC110 - proof that it listened
            await asyncio.sleep(0.01)
    writer.close()
