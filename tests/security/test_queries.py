"""A misspelt filter is no filter: it must not make a request mean more than was meant."""

from __future__ import annotations

import pytest

from knative.local.demo.shop import Shop
from knative.local.demo.stories import eventually
from tests.e2e.platform import LocalPlatform
from tests.e2e.test_dead_letters import PATH, letters_of, publish_poison
from tests.security.callers import Callers


@pytest.mark.parametrize(
    "query",
    ["", "event_type=shop.x.v1", "status=pending", "type=a&type=b", "Type=a", "all=yes", "all=true&typ=a"],
)
async def test_letters_of_every_type_are_discarded_only_by_name(
    shop: Shop, callers: Callers, local: LocalPlatform, query: str
) -> None:
    admin = callers.people["admin"]
    event_id = await publish_poison(local)

    async def kept() -> bool:
        return len(await letters_of(shop, admin, event_id)) == 1

    await eventually(kept, "one dead letter")
    status, problem, _ = await shop.raw("DELETE", f"{PATH}?{query}", who=admin)
    assert (status, problem["code"]) == (400, "INVALID_ARGUMENT")
    assert problem["errors"]
    assert await kept()
