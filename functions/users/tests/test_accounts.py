"""Registration, profiles, roles, deletion, contacts."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from events.catalog import UserDeleted, UserRegistered
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import ANONYMOUS
from functions.runtime.store.port import AlreadyDone, IdempotencyRecord, Ref
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.runtime.store.testing import recorded
from functions.users import addresses, service
from functions.users.challenge import Purpose
from functions.users.domain import Address, AddressBook, AdminRoster, Credentials, EmailClaim, User
from functions.users.store import MAPPINGS, email_key
from functions.users.tests.world import PASSWORD, World, me, service_named


async def test_registering_makes_a_customer_and_says_so_without_naming_them(world: World) -> None:
    user = await world.register(" Ada@Example.com ", name=" Ada ")
    assert (user.email, user.name, user.roles, user.version) == ("ada@example.com", "Ada", ["customer"], 1)
    assert user.email_deliverable
    assert user.created_at == user.updated_at == world.clock.now()
    assert await recorded(world.store) == [UserRegistered(user_id=user.id)]
    assert await service.get_user(user.id, me(user), store=world.store) == user


async def test_an_address_has_one_account_however_it_is_written(world: World) -> None:
    await world.register("ada@example.com")
    with pytest.raises(ServiceError) as raised:
        await world.register("ADA@EXAMPLE.COM")
    assert (raised.value.code, raised.value.reason) == (Code.ALREADY_EXISTS, "EMAIL_TAKEN")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_of_50_registrations_of_one_address_at_once_one_succeeds(kind: str, tmp_path: Path) -> None:
    world = World()
    if kind == "sqlite":
        world = World(SQLiteStore(tmp_path / "users.db", MAPPINGS, world.clock))
    tries = await asyncio.gather(*(world.register() for _ in range(50)), return_exceptions=True)
    outcomes = Counter(
        each.reason if isinstance(each, ServiceError) else type(each).__name__ for each in tries
    )
    assert outcomes == {"User": 1, "EMAIL_TAKEN": 49}
    assert len(await recorded(world.store)) == 1
    await world.store.close()
    await world.hasher.close()


@pytest.mark.parametrize(
    ("email", "password", "name", "field"),
    [
        ("ada", PASSWORD, "Ada", "email"),
        ("ada@example.com", "short", "Ada", "password"),
        ("ada@example.com", PASSWORD, "  ", "name"),
        ("ada@example.com", PASSWORD, "A" * 101, "name"),
    ],
)
async def test_a_registration_that_is_wrong_says_which_field(
    world: World, email: str, password: str, name: str, field: str
) -> None:
    with pytest.raises(ServiceError) as raised:
        await world.register(email, password=password, name=name)
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in raised.value.violations] == [field]


async def test_only_the_person_and_admins_read_change_or_delete_an_account(world: World) -> None:
    ada, eve, root = (
        await world.register(),
        await world.register("eve@example.com"),
        await world.register_admin(),
    )
    for caller in (me(eve), service_named("orders"), ANONYMOUS):
        for use in (
            service.get_user(ada.id, caller, store=world.store),
            world.update(ada, by=caller, name="Eve"),
            world.delete(ada, by=caller),
            addresses.list_addresses(ada.id, caller, store=world.store),
            addresses.delete_address(ada.id, "adr_x", caller, store=world.store),
            addresses.add_address(ada.id, an_address(), caller, store=world.store),
            addresses.update_address(ada.id, an_address(), caller, store=world.store),
        ):
            with pytest.raises(ServiceError) as raised:
                await use
            assert raised.value.code in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)
    assert await service.get_user(ada.id, me(root), store=world.store) == ada
    await world.delete(ada, by=me(root))


async def test_only_admins_list_accounts_set_roles_and_rotate_keys(world: World) -> None:
    ada = await world.register()
    for use in (
        service.list_users(0, "", me(ada), store=world.store),
        world.set_roles(ada, "admin", by=ada),
        service.rotate_keys(me(ada), keys=world.keys),
    ):
        with pytest.raises(ServiceError) as raised:
            await use
        assert raised.value.code is Code.PERMISSION_DENIED


async def test_accounts_are_listed_newest_first_and_by_pages(world: World) -> None:
    root = await world.register_admin()
    made = [root]
    for number in range(4):
        world.clock.advance(timedelta(seconds=1))
        made.append(await world.register(f"user{number}@example.com"))
    first = await service.list_users(3, "", me(root), store=world.store)
    second = await service.list_users(3, first.next_cursor or "", me(root), store=world.store)
    assert [*first.items, *second.items] == made[::-1]
    assert second.next_cursor is None
    with pytest.raises(ServiceError):
        await service.list_users(101, "", me(root), store=world.store)
    with pytest.raises(ServiceError) as raised:
        await service.list_users(3, "nonsense", me(root), store=world.store)
    assert raised.value.reason == "INVALID_CURSOR"


async def test_a_profile_is_changed_where_asked_and_its_version_grows(world: World) -> None:
    user = await world.register()
    world.clock.advance(timedelta(minutes=1))
    renamed = await world.update(user, name="Countess", version=user.version)
    assert (renamed.name, renamed.email, renamed.version) == ("Countess", "ada@example.com", 2)
    assert renamed.updated_at > renamed.created_at
    with pytest.raises(ServiceError) as raised:
        await world.update(user, name="Late", version=user.version)
    assert (raised.value.code, raised.value.reason) == (Code.ABORTED, "VERSION_MISMATCH")
    assert (await world.update(user, name="Countess")).version == 2, "nothing changed, nothing written"


async def test_of_changes_to_one_version_at_once_one_succeeds(world: World) -> None:
    user = await world.register()
    tries = await asyncio.gather(
        *(world.update(user, name=f"Ada {number}", version=user.version) for number in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, User) for each in tries) == 1


async def test_an_address_of_another_account_cannot_be_had(world: World) -> None:
    ada = await world.register("ada@example.com")
    await world.register("eve@example.com")
    with pytest.raises(ServiceError) as raised:
        await world.update(ada, email="EVE@example.com")
    assert raised.value.reason == "EMAIL_TAKEN"
    assert (await world.stored(ada)).pending_until is None


async def test_two_who_move_to_one_address_at_once_do_not_both_get_it(world: World) -> None:
    ada, eve = await world.register("ada@example.com"), await world.register("eve@example.com")
    codes = []
    for user in (ada, eve):
        await world.update(user, email="best@example.com")
        codes.append(await world.mailed(user, Purpose.EMAIL_CHANGE))
    tries = await asyncio.gather(*(world.confirm_email(code) for code in codes), return_exceptions=True)
    assert sorted(type(each).__name__ for each in tries) == ["NoneType", "ServiceError"]


async def test_deleting_an_account_leaves_nothing_that_names_the_person(world: World) -> None:
    user = await world.register()
    await addresses.add_address(user.id, an_address(), me(user), store=world.store)
    await world.delete(user)
    for ref in (
        Ref(User, user.id),
        Ref(Credentials, user.id),
        Ref(AddressBook, user.id),
        Ref(EmailClaim, email_key(user.email)),
    ):
        assert await world.store.get(ref.type, ref.id) is None, ref
    assert (await recorded(world.store))[-1] == UserDeleted(user_id=user.id)
    for use in (
        service.get_user(user.id, me(user), store=world.store),
        world.delete(user),
        addresses.add_address(user.id, an_address(), me(user), store=world.store),
        addresses.list_addresses(user.id, me(user), store=world.store),
    ):
        with pytest.raises(ServiceError) as raised:
            await use
        assert (raised.value.code, raised.value.reason) == (Code.NOT_FOUND, "USER_NOT_FOUND")


async def test_deleting_an_account_frees_its_address_and_ends_its_sessions(world: World) -> None:
    user = await world.register()
    tokens = await world.login()
    await world.delete(user)
    with pytest.raises(ServiceError) as raised:
        await world.login()
    assert raised.value.reason == "INVALID_CREDENTIALS"
    again = await world.register()
    assert again.id != user.id
    with pytest.raises(ServiceError) as raised:
        await world.refresh(tokens.refresh_token)
    assert raised.value.reason == "INVALID_REFRESH_TOKEN"


async def test_an_admin_gives_and_takes_roles_and_the_next_tokens_say_so(world: World) -> None:
    root, ada = await world.register_admin(), await world.register()
    tokens = await world.login()
    promoted = await world.set_roles(ada, "customer", "admin", "admin", by=root)
    assert promoted.roles == ["admin", "customer"]
    refreshed = await world.refresh(tokens.refresh_token)
    assert (await world.new_verifier().verify(refreshed.access_token)).is_admin
    assert (await world.set_roles(ada, "customer", by=root)).roles == ["customer"]
    with pytest.raises(ServiceError) as raised:
        await world.set_roles(root, "customer", by=root)
    assert raised.value.reason == "LAST_ADMIN"


@pytest.mark.parametrize("roles", [(), ("root",), ("customer", "service")])
async def test_roles_that_there_are_not_are_refused(world: World, roles: tuple[str, ...]) -> None:
    root = await world.register_admin()
    with pytest.raises(ServiceError) as raised:
        await world.set_roles(root, *roles, by=root)
    assert raised.value.code is Code.INVALID_ARGUMENT


async def test_the_last_admin_can_neither_step_down_nor_be_deleted(world: World) -> None:
    first, second = await world.register_admin(), await world.register_admin("second@example.com")
    await asyncio.gather(
        world.set_roles(first, "customer", by=second),
        world.set_roles(second, "customer", by=first),
        world.delete(second),
        return_exceptions=True,
    )
    roster = await world.store.get(AdminRoster, "admins")
    assert roster
    assert len(roster.user_ids) == 1
    last = await world.store.get(User, roster.user_ids[0])
    assert last
    assert last.is_admin
    with pytest.raises(ServiceError) as raised:
        await world.delete(last)
    assert (raised.value.code, raised.value.reason) == (Code.FAILED_PRECONDITION, "LAST_ADMIN")


async def test_roles_of_nobody_are_not_found(world: World) -> None:
    root = await world.register_admin()
    await world.set_roles(root, "admin", by=root)
    root.id = "usr_" + "0" * 32
    with pytest.raises(ServiceError) as raised:
        await world.set_roles(root, "admin", by=root)
    assert raised.value.reason == "USER_NOT_FOUND"


async def test_contacts_are_for_the_notifications_service_only(world: World) -> None:
    root, ada = await world.register_admin(), await world.register()
    notifications = service_named("notifications")
    found = await service.contacts([ada.id, "usr_nobody", ada.id], False, notifications, store=world.store)
    assert found == [ada]
    found = await service.contacts([ada.id], True, notifications, store=world.store)
    assert {user.id for user in found} == {root.id, ada.id}
    for caller in (me(root), me(ada), service_named("orders"), ANONYMOUS):
        with pytest.raises(ServiceError):
            await service.contacts([ada.id], True, caller, store=world.store)
    with pytest.raises(ServiceError):
        await service.contacts(["usr_x"] * 101, False, notifications, store=world.store)


async def test_a_bounce_marks_the_address_once_and_a_new_address_starts_afresh(world: World) -> None:
    user = await world.register()
    idempotency = IdempotencyRecord("inbox:/notifications:1", timedelta(days=1))
    at = world.clock.now()

    async def bounce(idempotency: IdempotencyRecord) -> None:
        await service.mark_undeliverable(
            user.id, at, store=world.store, clock=world.clock, idempotency=idempotency
        )

    await bounce(idempotency)
    with pytest.raises(AlreadyDone):
        await bounce(idempotency)
    stored = await service.get_user(user.id, me(user), store=world.store)
    assert (stored.email_deliverable, stored.version) == (False, 2)
    world.clock.advance(timedelta(minutes=1))
    await world.move(user, "new@example.com")
    assert (await world.stored(user)).email_deliverable
    await bounce(IdempotencyRecord("inbox:/notifications:2", timedelta(days=1)))
    stored = await service.get_user(user.id, me(user), store=world.store)
    assert stored.email_deliverable, "the bounce is older than the address"


async def test_a_bounce_of_somebody_who_left_is_nothing(world: World) -> None:
    idempotency = IdempotencyRecord("inbox:/notifications:1", timedelta(days=1))
    await service.mark_undeliverable(
        "usr_gone", world.clock.now(), store=world.store, clock=world.clock, idempotency=idempotency
    )


def an_address() -> Address:
    return Address("Ada", "1 Engine Street", "London", "N1 9GU", "gb")
