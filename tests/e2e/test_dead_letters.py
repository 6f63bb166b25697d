"""Events that nobody could handle: kept, shown, replayed and discarded through the gateway."""

from typing import Any

import aiohttp

from events.catalog import OrderPlaced
from functions.runtime.ids import uuid7
from knative.local.demo.shop import Person, Shop
from knative.local.demo.stories import eventually
from tests.e2e.platform import LocalPlatform
from tests.signing import local_key, signed

PATH = "/v1/admin/dead-letters"


async def publish_poison(local: LocalPlatform) -> str:
    """An order.placed that no handler can read, straight to the broker; its event id."""
    event_id = uuid7()
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-type": OrderPlaced.TYPE,
        "ce-source": OrderPlaced.SOURCE,
        "content-type": "application/json",
    }
    headers = signed(headers, b"{}", local_key(local.folder, "orders"))
    url = f"{local.state()['parts']['broker']['url']}/shop/default"
    async with aiohttp.ClientSession() as session, session.post(url, data=b"{}", headers=headers) as answer:
        assert answer.status == 202
    return event_id


async def letters_of(shop: Shop, admin: Person, event_id: str) -> list[dict[str, Any]]:
    return [letter for letter in await shop.all(PATH, admin) if event_id in str(letter)]


async def test_an_event_that_nobody_can_handle_is_kept_and_replayed_and_discarded(
    shop: Shop, admin: Person, local: LocalPlatform
) -> None:
    event_id = await publish_poison(local)

    async def kept() -> bool:
        return len(await letters_of(shop, admin, event_id)) == 1

    await eventually(kept, "one dead letter")
    letter = (await letters_of(shop, admin, event_id))[0]
    shown = await shop.call("GET", f"{PATH}/{letter['id']}", who=admin)
    assert "422" in str(shown)
    assert "EVENT_DATA_INVALID" in str(shown)

    await shop.call("POST", f"{PATH}/{letter['id']}/replay", who=admin)
    await eventually(kept, "the letter back, since nothing changed")

    status, _, _ = await shop.raw("DELETE", f"{PATH}/{letter['id']}", who=admin)
    assert status == 204
    assert await letters_of(shop, admin, event_id) == []
