"""A person's addresses."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from functions.runtime.errors import Code, ServiceError
from functions.users import addresses
from functions.users.domain import MAX_ADDRESSES, Address
from functions.users.tests.world import World, me

HOME = Address(" Ada ", "1 Engine Street", "London", "N1 9GU", "gb")


async def test_addresses_are_kept_oldest_first_each_under_an_id_of_its_own(world: World) -> None:
    user = await world.register()
    home = await addresses.add_address(user.id, HOME, me(user), store=world.store)
    work = await addresses.add_address(user.id, replace(HOME, id=home.id), me(user), store=world.store)
    assert home.id.startswith("adr_")
    assert home.id != work.id
    assert (home.name, home.country) == ("Ada", "GB")
    assert await addresses.list_addresses(user.id, me(user), store=world.store) == [home, work]


async def test_an_address_is_replaced_and_removed_by_its_id(world: World) -> None:
    user = await world.register()
    home = await addresses.add_address(user.id, HOME, me(user), store=world.store)
    moved = await addresses.update_address(user.id, replace(home, city="Bath"), me(user), store=world.store)
    assert await addresses.list_addresses(user.id, me(user), store=world.store) == [moved]
    await addresses.delete_address(user.id, home.id, me(user), store=world.store)
    assert await addresses.list_addresses(user.id, me(user), store=world.store) == []
    for use in (
        addresses.update_address(user.id, home, me(user), store=world.store),
        addresses.delete_address(user.id, home.id, me(user), store=world.store),
    ):
        with pytest.raises(ServiceError) as raised:
            await use
        assert raised.value.reason == "ADDRESS_NOT_FOUND"


async def test_at_most_20_addresses_are_kept_however_many_come_at_once(world: World) -> None:
    user = await world.register()
    tries = await asyncio.gather(
        *(
            addresses.add_address(user.id, HOME, me(user), store=world.store)
            for _ in range(MAX_ADDRESSES + 3)
        ),
        return_exceptions=True,
    )
    refused = [each for each in tries if isinstance(each, ServiceError)]
    assert [(each.code, each.reason) for each in refused] == [
        (Code.RESOURCE_EXHAUSTED, "TOO_MANY_ADDRESSES")
    ] * 3
    assert len(await addresses.list_addresses(user.id, me(user), store=world.store)) == MAX_ADDRESSES


async def test_an_address_does_not_change_the_version_of_the_profile(world: World) -> None:
    user = await world.register()
    await addresses.add_address(user.id, HOME, me(user), store=world.store)
    assert (await world.update(user, name="Countess", version=user.version)).version == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("line1", " "),
        ("line2", "x" * 201),
        ("city", ""),
        ("postal_code", "9" * 21),
        ("country", "ZZ"),
    ],
)
async def test_an_address_that_is_wrong_says_which_field(world: World, field: str, value: str) -> None:
    user = await world.register()
    with pytest.raises(ServiceError) as raised:
        await addresses.add_address(user.id, replace(HOME, **{field: value}), me(user), store=world.store)
    assert [violation.field for violation in raised.value.violations] == [f"address.{field}"]


async def test_a_book_knows_what_each_country_asks_for(world: World) -> None:
    user = await world.register()
    tokyo = Address("山田　太郎", "千代田1-1", "千代田区", "100-0001", "JP")
    kept = await addresses.add_address(user.id, tokyo, me(user), store=world.store)
    assert (kept.name, kept.state) == ("山田　太郎", "東京都")
    dubai = Address("Ada", "1 Creek Road", "Dubai", "", "AE")
    assert (await addresses.add_address(user.id, dubai, me(user), store=world.store)).postal_code == ""
    with pytest.raises(ServiceError) as raised:
        await addresses.add_address(user.id, replace(HOME, postal_code=""), me(user), store=world.store)
    assert [violation.field for violation in raised.value.violations] == ["address.postal_code"]


def test_an_address_that_was_stored_before_there_were_states_is_read() -> None:
    old = b'{"id":"adr_1","name":"Ada","line1":"1","line2":"","city":"London","postal_code":"N1","country":"GB"}'
    assert msgspec.json.decode(old, type=Address).state == ""
