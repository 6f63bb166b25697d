"""A dead letter that is replayed takes effect once, where it had failed, and changes nothing where it had not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from events.catalog import OrderConfirmed
from functions.notifications.store import notifications_of
from proto.shop.orders.v1 import orders_pb2 as pb
from tests.integration.together import Actor, Together, administrator, comes_to, register


class Impatient(Together):
    """A platform whose broker gives up after the first failure."""

    def broker_config(self) -> str:
        return super().broker_config().replace("retry: 5", "retry: 0")

    async def letters(self, method: str, path: str) -> Any:
        """Ask the dead-letter sink."""
        url = f"{self.broker_url}/dead-letters{path}"
        headers = self.dead_letters_token
        async with aiohttp.ClientSession(headers=headers) as session, session.request(method, url) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Impatient]:
    platform = Impatient(tmp_path)
    await platform.start()
    yield platform
    await platform.stop()


async def confirmations(platform: Together, who: Actor) -> int:
    """How many mails told of a confirmed order."""
    store = platform.runner["notifications"].function.store
    found = (await notifications_of(store, who.user_id, 100, None)).items
    return sum(message.template == "order_confirmed" for message in found)


async def test_a_replayed_letter_is_handled_once_by_whoever_had_not(impatient: Impatient) -> None:
    customer, admin = await register(impatient), await administrator(impatient)
    product = await admin.product(on_hand=5)
    await impatient.stop_function("notifications")
    order = await customer.place(product, 2)

    async def letters() -> list[tuple[str, str, int]]:
        found = await impatient.letters("GET", f"/entries?type={OrderConfirmed.TYPE}")
        return [(letter["trigger"], letter["subject"], letter["attempts"]) for letter in found["items"]]

    await comes_to(letters, [("shop/notifications-events", order.id, 1)])
    await comes_to(lambda: admin.stock(product), (3, 0))
    await impatient.start_function("notifications")
    for _ in range(2):  # the second finds nothing pending
        await impatient.letters("POST", f"/replay?type={OrderConfirmed.TYPE}")
    await comes_to(letters, [])
    await comes_to(lambda: confirmations(impatient, customer), 1)

    (replayed,) = (await impatient.letters("GET", f"/entries?status=replayed&type={OrderConfirmed.TYPE}"))["items"]
    await impatient.letters("POST", f"/entries/{replayed['id']}/replay")
    await impatient.settled()
    assert await confirmations(impatient, customer) == 1
    assert await admin.stock(product) == (3, 0)
    assert (await customer.order(order.id)).status == pb.ORDER_STATUS_CONFIRMED
