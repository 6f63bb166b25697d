"""kill -9 and restarts under load: every order ends, nothing acknowledged is lost, stock and money add up."""

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from knative.local.demo.shop import FINAL, Person, Refused, Shop
from knative.local.demo.stories import eventually
from knative.local.ports import DOMAINS
from tests.e2e.platform import LocalPlatform, given

PARTS = ["broker", *DOMAINS, "gateway"]
PIECES = 1000


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    """A platform of our own: whoever else runs tests should not feel the shots."""
    if given() is not None:
        pytest.skip("needs a platform of its own, to kill its parts: unset E2E_BASE_URL")
    platform = LocalPlatform(tmp_path_factory.mktemp("mortal") / "data")
    platform.start()
    yield platform
    assert platform.stop() == 0, platform.output()


async def a_product(shop: Shop, admin: Person, sku: str) -> dict[str, Any]:
    body = {"sku": sku, "name": "Target", "category": "range", "price": {"amount": 100, "currency": "EUR"}}
    product: dict[str, Any] = await shop.call("POST", "/v1/products", who=admin, json=body)
    path = f"/v1/products/{product['id']}/stock"
    await shop.call("PUT", path, who=admin, json={"on_hand": PIECES})
    return product


async def place_all(shop: Shop, who: Person, product_id: str, count: int) -> list[str]:
    """Orders as a persistent client makes them: the same key until there is an answer. The ids acknowledged."""

    async def place(number: int) -> str:
        key = f"{product_id}-{number}"
        return str((await shop.order(who, {product_id: 1}, key=key))["id"])

    return await asyncio.gather(*[place(number) for number in range(count)])


async def assert_it_adds_up(shop: Shop, who: Person, admin: Person, product_id: str, ids: list[str]) -> None:
    orders = await asyncio.gather(*[shop.settled(who, order_id, seconds=120) for order_id in ids])
    assert {order["status"] for order in orders} <= FINAL
    confirmed = [order for order in orders if order["status"] == "CONFIRMED"]
    mine = {order["id"] for order in await shop.all("/v1/orders", who) if order["lines"][0]["product_id"] == product_id}
    assert mine == set(ids), "one order per key, none lost"

    async def stock_matches() -> bool:
        stock = await shop.stock(product_id)
        return bool(stock["on_hand"] == PIECES - len(confirmed) and stock["reserved"] == 0)

    async def money_matches() -> bool:
        ledger = await shop.all("/v1/admin/payments/ledger", admin)
        ours = {f"pay_{order_id[4:]}" for order_id in ids}
        moved = [e for e in ledger if e["payment_id"] in ours and e["outcome"] == "succeeded"]
        charges = sum(e["amount"]["amount"] for e in moved if e["kind"] == "charge")
        refunds = sum(e["amount"]["amount"] for e in moved if e["kind"] == "refund")
        assert len([e for e in moved if e["kind"] == "charge"]) <= len(ids)
        return bool(charges - refunds == 100 * len(confirmed))

    await eventually(stock_matches, f"{PIECES - len(confirmed)} on hand and none reserved", 60)
    await eventually(money_matches, f"{100 * len(confirmed)} kept of the money", 60)


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_killed_with_100_orders_in_flight_comes_back_and_all_adds_up(
    mortal: LocalPlatform, part: str
) -> None:
    async with Shop(mortal.base_url) as shop:
        admin = await shop.login(mortal.admin_email, mortal.admin_password)
        who = await shop.register()
        product = await a_product(shop, admin, f"KILL-{part}")
        placing = asyncio.create_task(place_all(shop, who, product["id"], 100))
        await orders_reach(shop, who, product["id"], 20)
        killed = mortal.kill(part)
        ids = await placing
        await asyncio.to_thread(mortal.await_return, part, killed)
        await assert_it_adds_up(shop, who, admin, product["id"], ids)


async def orders_reach(shop: Shop, who: Person, product_id: str, count: int) -> None:
    async def enough() -> bool:
        page = await shop.call("GET", "/v1/orders?limit=100", who=who)
        return len([o for o in page["items"] if o["lines"][0]["product_id"] == product_id]) >= count

    await eventually(enough, f"{count} orders placed")


async def test_everything_stopped_and_started_again_has_all_that_was_acknowledged(
    mortal: LocalPlatform,
) -> None:
    async with Shop(mortal.base_url) as shop:
        admin = await shop.login(mortal.admin_email, mortal.admin_password)
        who = await shop.register()
        product = await a_product(shop, admin, "RESTART")
        acknowledged: list[str] = []

        async def place(number: int) -> None:
            try:
                acknowledged.append((await shop.order(who, {product["id"]: 1}, key=f"restart-{number}"))["id"])
            except (Refused, OSError, aiohttp.ClientError):
                return  # not acknowledged: nothing was promised

        placing = asyncio.gather(*[place(number) for number in range(100)])
        await orders_reach(shop, who, product["id"], 20)
        assert await asyncio.to_thread(mortal.stop) == 0
        await placing
    await asyncio.to_thread(mortal.start)
    async with Shop(mortal.base_url) as shop:
        admin = await shop.login(mortal.admin_email, mortal.admin_password)
        who = await shop.login(who.email, who.password)
        placed = [order["id"] for order in await shop.all("/v1/orders", who)]
        assert set(acknowledged) <= set(placed)
        await assert_it_adds_up(shop, who, admin, product["id"], placed)
