"""A ticket in an address is seen by more eyes than a header: it is of no use to them."""

from __future__ import annotations

import aiohttp

from knative.local.demo.shop import Shop
from tests.e2e.platform import LocalPlatform
from tests.security.callers import Callers


async def status_of(url: str) -> int:
    async with aiohttp.ClientSession(trust_env=False) as session, session.get(url) as answer:
        return answer.status


async def test_a_ticket_opens_its_order_once_and_is_in_no_log(
    shop: Shop, callers: Callers, local: LocalPlatform
) -> None:
    customer, order = callers.people["customer"], callers.ids["order_id"]
    issued = await shop.call("POST", f"/v1/orders/{order}/stream-tickets", who=customer)
    assert await status_of(local.base_url + issued["url"]) == 200
    assert await status_of(local.base_url + issued["url"]) == 401
    logs = local.folder / "logs"
    assert not [path for path in logs.iterdir() if issued["ticket"] in path.read_text()]


async def test_a_ticket_opens_nothing_but_its_stream(shop: Shop, callers: Callers, local: LocalPlatform) -> None:
    customer, order = callers.people["customer"], callers.ids["order_id"]
    for path in (f"/v1/orders/{order}", "/v1/users/me", f"/v1/orders/{order}/payment"):
        issued = await shop.call("POST", f"/v1/orders/{order}/stream-tickets", who=customer)
        assert await status_of(f"{local.base_url}{path}?ticket={issued['ticket']}") in (400, 401)
    other = f"ord_{'0' * 31}1"
    issued = await shop.call("POST", f"/v1/orders/{order}/stream-tickets", who=customer)
    assert await status_of(f"{local.base_url}/v1/orders/{other}/stream?ticket={issued['ticket']}") == 401


async def test_nobody_gets_a_ticket_for_another_s_order(shop: Shop, callers: Callers) -> None:
    status, _, _ = await shop.raw(
        "POST", f"/v1/orders/{callers.ids['order_id']}/stream-tickets", who=callers.people["stranger"]
    )
    assert status == 404
