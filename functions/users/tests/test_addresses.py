"""A person's addresses."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from functions.runtime.errors import Code, ServiceError
from functions.users.domain import MAX_ADDRESSES, Address
from functions.users.service import DeleteAddress, UpdateAddress
from functions.users.tests.accounts import Accounts, identity_of

HOME = Address(" Ada ", "1 Engine Street", "London", "N1 9GU", "gb")


async def test_addresses_are_listed_oldest_first_each_with_its_own_id(accounts: Accounts) -> None:
    user = await accounts.register()
    home = await accounts.add_address(user, HOME)
    work = await accounts.add_address(user, replace(HOME, id=home.id))
    assert home.id.startswith("adr_")
    assert home.id != work.id
    assert (home.name, home.country) == ("Ada", "GB")
    assert await accounts.users.list_addresses(user.id, identity_of(user)) == [home, work]


async def test_an_address_is_replaced_and_removed_by_its_id(accounts: Accounts) -> None:
    user = await accounts.register()
    home = await accounts.add_address(user, HOME)
    moved = await accounts.users.update_address(UpdateAddress(user.id, replace(home, city="Bath")), identity_of(user))
    assert await accounts.users.list_addresses(user.id, identity_of(user)) == [moved]
    await accounts.users.delete_address(DeleteAddress(user.id, home.id), identity_of(user))
    assert await accounts.users.list_addresses(user.id, identity_of(user)) == []
    for use in (
        accounts.users.update_address(UpdateAddress(user.id, home), identity_of(user)),
        accounts.users.delete_address(DeleteAddress(user.id, home.id), identity_of(user)),
    ):
        with pytest.raises(ServiceError) as raised:
            await use
        assert raised.value.reason == "ADDRESS_NOT_FOUND"


async def test_at_most_20_addresses_are_stored_even_if_more_arrive_at_once(accounts: Accounts) -> None:
    user = await accounts.register()
    tries = await asyncio.gather(
        *(accounts.add_address(user, HOME) for _ in range(MAX_ADDRESSES + 3)),
        return_exceptions=True,
    )
    refused = [each for each in tries if isinstance(each, ServiceError)]
    assert [(each.code, each.reason) for each in refused] == [(Code.RESOURCE_EXHAUSTED, "TOO_MANY_ADDRESSES")] * 3
    assert len(await accounts.users.list_addresses(user.id, identity_of(user))) == MAX_ADDRESSES


async def test_an_address_does_not_change_the_version_of_the_profile(accounts: Accounts) -> None:
    user = await accounts.register()
    await accounts.add_address(user, HOME)
    assert (await accounts.update(user, name="Countess", version=user.version)).version == 2


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
async def test_an_invalid_address_names_the_field(accounts: Accounts, field: str, value: str) -> None:
    user = await accounts.register()
    with pytest.raises(ServiceError) as raised:
        await accounts.add_address(user, replace(HOME, **{field: value}))
    assert [violation.field for violation in raised.value.violations] == [f"address.{field}"]


async def test_addresses_follow_the_rules_of_their_country(accounts: Accounts) -> None:
    user = await accounts.register()
    tokyo = Address("山田　太郎", "千代田1-1", "千代田区", "100-0001", "JP")
    kept = await accounts.add_address(user, tokyo)
    assert (kept.name, kept.state) == ("山田　太郎", "東京都")
    dubai = Address("Ada", "1 Creek Road", "Dubai", "", "AE")
    assert (await accounts.add_address(user, dubai)).postal_code == ""
    with pytest.raises(ServiceError) as raised:
        await accounts.add_address(user, replace(HOME, postal_code=""))
    assert [violation.field for violation in raised.value.violations] == ["address.postal_code"]


def test_an_address_stored_without_a_state_can_be_read() -> None:
    old = b'{"id":"adr_1","name":"Ada","line1":"1","line2":"","city":"London","postal_code":"N1","country":"GB"}'
    assert msgspec.json.decode(old, type=Address).state == ""
