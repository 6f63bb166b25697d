"""Registration, profiles, roles, deletion, contacts."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from events.catalog import NotificationBounced, UserDeleted, UserRegistered
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import ANONYMOUS
from functions.runtime.inbox import inbox_record
from functions.runtime.store.port import AlreadyDone, Ref
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.runtime.tests.support import recorded
from functions.users.auth.challenges import Purpose
from functions.users.domain import (
    Address,
    AddressBook,
    AdminRoster,
    Credentials,
    EmailClaim,
    User,
    clean_name,
)
from functions.users.emails import email_key
from functions.users.service import AddAddress, DeleteAddress, GetContacts, ListUsers, UpdateAddress
from functions.users.store import MAPPINGS
from functions.users.tests.accounts import PASSWORD, Accounts, identity_of, service_named


async def test_registering_creates_a_customer_and_publishes_no_personal_data(accounts: Accounts) -> None:
    user = await accounts.register(" Ada@Example.com ", name=" Ada ")
    assert (user.email, user.name, user.roles, user.version) == ("ada@example.com", "Ada", ["customer"], 1)
    assert user.email_deliverable
    assert user.created_at == user.updated_at == accounts.clock.now()
    assert await recorded(accounts.store) == [UserRegistered(user_id=user.id)]
    assert await accounts.users.get(user.id, identity_of(user)) == user


async def test_an_address_has_one_account_in_any_spelling(accounts: Accounts) -> None:
    await accounts.register("ada@example.com")
    with pytest.raises(ServiceError) as raised:
        await accounts.register("ADA@EXAMPLE.COM")
    assert (raised.value.code, raised.value.reason) == (Code.ALREADY_EXISTS, "EMAIL_TAKEN")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_one_of_50_simultaneous_registrations_of_one_address_succeeds(kind: str, tmp_path: Path) -> None:
    accounts = Accounts()
    if kind == "sqlite":
        accounts = Accounts(SQLiteStore(tmp_path / "users.db", MAPPINGS, accounts.clock))
    tries = await asyncio.gather(*(accounts.register() for _ in range(50)), return_exceptions=True)
    outcomes = Counter(each.reason if isinstance(each, ServiceError) else type(each).__name__ for each in tries)
    assert outcomes == {"User": 1, "EMAIL_TAKEN": 49}
    assert len(await recorded(accounts.store)) == 1
    await accounts.store.close()
    await accounts.hasher.close()


@pytest.mark.parametrize(
    ("email", "password", "name", "field"),
    [
        ("ada", PASSWORD, "Ada", "email"),
        ("ada@example.com", "short", "Ada", "password"),
        ("ada@example.com", PASSWORD, "  ", "name"),
        ("ada@example.com", PASSWORD, "A" * 101, "name"),
    ],
)
async def test_an_invalid_registration_names_the_field(
    accounts: Accounts, email: str, password: str, name: str, field: str
) -> None:
    with pytest.raises(ServiceError) as raised:
        await accounts.register(email, password=password, name=name)
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in raised.value.violations] == [field]


@pytest.mark.parametrize("given", ["", "\u3164", "x" * 101, "Ada\r\nBcc: x", "Ada \u202e", "x" * 1_000_000])
def test_an_invisible_or_multiline_name_is_refused(given: str) -> None:
    with pytest.raises(ServiceError) as raised:
        clean_name(given)
    assert raised.value.violations[0].field == "name"


@pytest.mark.parametrize("given", ["  Zoe\u0308 ", "山田　太郎"])
def test_a_name_is_stored_as_it_is_written(given: str) -> None:
    assert clean_name(given) == {"  Zoe\u0308 ": "Zoë"}.get(given, given)


async def test_only_the_owner_and_admins_read_change_or_delete_an_account(accounts: Accounts) -> None:
    ada, eve, root = (
        await accounts.register(),
        await accounts.register("eve@example.com"),
        await accounts.register_admin(),
    )
    for caller in (identity_of(eve), service_named("orders"), ANONYMOUS):
        for use in (
            accounts.users.get(ada.id, caller),
            accounts.update(ada, by=caller, name="Eve"),
            accounts.delete(ada, by=caller),
            accounts.users.list_addresses(ada.id, caller),
            accounts.users.delete_address(DeleteAddress(ada.id, "adr_x"), caller),
            accounts.users.add_address(AddAddress(ada.id, an_address()), caller),
            accounts.users.update_address(UpdateAddress(ada.id, an_address()), caller),
        ):
            with pytest.raises(ServiceError) as raised:
                await use
            assert raised.value.code in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)
    assert await accounts.users.get(ada.id, identity_of(root)) == ada
    await accounts.delete(ada, by=identity_of(root))


async def test_only_admins_list_accounts_set_roles_and_rotate_keys(accounts: Accounts) -> None:
    ada = await accounts.register()
    for use in (
        accounts.users.list_users(ListUsers(), identity_of(ada)),
        accounts.set_roles(ada, "admin", by=ada),
        accounts.keys.rotate(identity_of(ada)),
    ):
        with pytest.raises(ServiceError) as raised:
            await use
        assert raised.value.code is Code.PERMISSION_DENIED


async def test_accounts_are_listed_newest_first_and_by_pages(accounts: Accounts) -> None:
    root = await accounts.register_admin()
    made = [root]
    for number in range(4):
        accounts.clock.advance(timedelta(seconds=1))
        made.append(await accounts.register(f"user{number}@example.com"))
    caller = identity_of(root)
    first = await accounts.users.list_users(ListUsers(3), caller)
    second = await accounts.users.list_users(ListUsers(3, first.next_cursor or ""), caller)
    assert [*first.items, *second.items] == made[::-1]
    assert second.next_cursor is None
    with pytest.raises(ServiceError):
        await accounts.users.list_users(ListUsers(101), caller)
    with pytest.raises(ServiceError) as raised:
        await accounts.users.list_users(ListUsers(3, "nonsense"), caller)
    assert raised.value.reason == "INVALID_CURSOR"


async def test_a_changed_profile_has_a_new_version(accounts: Accounts) -> None:
    user = await accounts.register()
    accounts.clock.advance(timedelta(minutes=1))
    renamed = await accounts.update(user, name="Countess", version=user.version)
    assert (renamed.name, renamed.email, renamed.version) == ("Countess", "ada@example.com", 2)
    assert renamed.updated_at > renamed.created_at
    with pytest.raises(ServiceError) as raised:
        await accounts.update(user, name="Late", version=user.version)
    assert (raised.value.code, raised.value.reason) == (Code.ABORTED, "VERSION_MISMATCH")
    assert (await accounts.update(user, name="Countess")).version == 2, "nothing changed, nothing written"


async def test_one_of_several_simultaneous_changes_to_a_version_succeeds(accounts: Accounts) -> None:
    user = await accounts.register()
    tries = await asyncio.gather(
        *(accounts.update(user, name=f"Ada {number}", version=user.version) for number in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, User) for each in tries) == 1


async def test_the_address_of_another_account_is_refused(accounts: Accounts) -> None:
    ada = await accounts.register("ada@example.com")
    await accounts.register("eve@example.com")
    with pytest.raises(ServiceError) as raised:
        await accounts.update(ada, email="EVE@example.com")
    assert raised.value.reason == "EMAIL_TAKEN"
    assert (await accounts.stored(ada)).pending_until is None


async def test_one_of_two_simultaneous_changes_to_the_same_address_succeeds(accounts: Accounts) -> None:
    ada, eve = await accounts.register("ada@example.com"), await accounts.register("eve@example.com")
    codes = []
    for user in (ada, eve):
        await accounts.update(user, email="best@example.com")
        codes.append(await accounts.mailed_token(user, Purpose.EMAIL_CHANGE))
    tries = await asyncio.gather(*(accounts.email_changes.confirm(code) for code in codes), return_exceptions=True)
    assert sorted(type(each).__name__ for each in tries) == ["NoneType", "ServiceError"]


async def test_deleting_an_account_leaves_nothing_that_names_the_person(accounts: Accounts) -> None:
    user = await accounts.register()
    await accounts.add_address(user, an_address())
    await accounts.delete(user)
    for ref in (
        Ref(User, user.id),
        Ref(Credentials, user.id),
        Ref(AddressBook, user.id),
        Ref(EmailClaim, email_key(user.email)),
    ):
        assert await accounts.store.get(ref.type, ref.id) is None, ref
    assert (await recorded(accounts.store))[-1] == UserDeleted(user_id=user.id)
    for use in (
        accounts.users.get(user.id, identity_of(user)),
        accounts.delete(user),
        accounts.add_address(user, an_address()),
        accounts.users.list_addresses(user.id, identity_of(user)),
    ):
        with pytest.raises(ServiceError) as raised:
            await use
        assert (raised.value.code, raised.value.reason) == (Code.NOT_FOUND, "USER_NOT_FOUND")


async def test_deleting_an_account_frees_its_address_and_ends_its_sessions(accounts: Accounts) -> None:
    user = await accounts.register()
    tokens = await accounts.login()
    await accounts.delete(user)
    with pytest.raises(ServiceError) as raised:
        await accounts.login()
    assert raised.value.reason == "INVALID_CREDENTIALS"
    again = await accounts.register()
    assert again.id != user.id
    with pytest.raises(ServiceError) as raised:
        await accounts.refresh(tokens.refresh_token)
    assert raised.value.reason == "INVALID_REFRESH_TOKEN"


async def test_an_admin_changes_roles_and_the_next_tokens_contain_them(accounts: Accounts) -> None:
    root, ada = await accounts.register_admin(), await accounts.register()
    tokens = await accounts.login()
    promoted = await accounts.set_roles(ada, "customer", "admin", "admin", by=root)
    assert promoted.roles == ["admin", "customer"]
    refreshed = await accounts.refresh(tokens.refresh_token)
    assert (await accounts.new_verifier().verify(refreshed.access_token)).is_admin
    assert (await accounts.set_roles(ada, "customer", by=root)).roles == ["customer"]
    with pytest.raises(ServiceError) as raised:
        await accounts.set_roles(root, "customer", by=root)
    assert raised.value.reason == "LAST_ADMIN"


@pytest.mark.parametrize("roles", [(), ("root",), ("customer", "service")])
async def test_unknown_roles_are_refused(accounts: Accounts, roles: tuple[str, ...]) -> None:
    root = await accounts.register_admin()
    with pytest.raises(ServiceError) as raised:
        await accounts.set_roles(root, *roles, by=root)
    assert raised.value.code is Code.INVALID_ARGUMENT


async def test_the_last_admin_can_neither_resign_nor_be_deleted(accounts: Accounts) -> None:
    first, second = await accounts.register_admin(), await accounts.register_admin("second@example.com")
    await asyncio.gather(
        accounts.set_roles(first, "customer", by=second),
        accounts.set_roles(second, "customer", by=first),
        accounts.delete(second),
        return_exceptions=True,
    )
    roster = await accounts.store.get(AdminRoster, "admins")
    assert roster
    assert len(roster.user_ids) == 1
    last = await accounts.store.get(User, roster.user_ids[0])
    assert last
    assert last.is_admin
    with pytest.raises(ServiceError) as raised:
        await accounts.delete(last)
    assert (raised.value.code, raised.value.reason) == (Code.FAILED_PRECONDITION, "LAST_ADMIN")


async def test_roles_of_an_unknown_account_are_not_found(accounts: Accounts) -> None:
    root = await accounts.register_admin()
    await accounts.set_roles(root, "admin", by=root)
    root.id = "usr_" + "0" * 32
    with pytest.raises(ServiceError) as raised:
        await accounts.set_roles(root, "admin", by=root)
    assert raised.value.reason == "USER_NOT_FOUND"


async def test_contacts_are_for_the_notifications_service_only(accounts: Accounts) -> None:
    root, ada = await accounts.register_admin(), await accounts.register()
    notifications = service_named("notifications")
    query = GetContacts([ada.id, "usr_nobody", ada.id])
    found = await accounts.users.get_contacts(query, notifications)
    assert found == [ada]
    found = await accounts.users.get_contacts(GetContacts([ada.id], admins=True), notifications)
    assert {user.id for user in found} == {root.id, ada.id}
    for caller in (identity_of(root), identity_of(ada), service_named("orders"), ANONYMOUS):
        with pytest.raises(ServiceError):
            await accounts.users.get_contacts(GetContacts([ada.id], admins=True), caller)
    with pytest.raises(ServiceError):
        await accounts.users.get_contacts(GetContacts(["usr_x"] * 101), notifications)


async def test_a_bounce_marks_the_address_once_and_does_not_affect_a_later_address(
    accounts: Accounts,
) -> None:
    user = await accounts.register()
    bounced = NotificationBounced(notification_id="ntf_" + "0" * 32, user_id=user.id)
    at = accounts.clock.now()
    first, second = [inbox_record("/notifications", str(number), at) for number in range(2)]
    await accounts.users.on_notification_bounced(bounced, first)
    with pytest.raises(AlreadyDone):
        await accounts.users.on_notification_bounced(bounced, first)
    stored = await accounts.users.get(user.id, identity_of(user))
    assert (stored.email_deliverable, stored.version) == (False, 2)
    accounts.clock.advance(timedelta(minutes=1))
    await accounts.change_email(user, "new@example.com")
    assert (await accounts.stored(user)).email_deliverable
    await accounts.users.on_notification_bounced(bounced, second)
    stored = await accounts.users.get(user.id, identity_of(user))
    assert stored.email_deliverable, "the bounce is older than the address"


async def test_a_bounce_of_a_deleted_account_is_ignored(accounts: Accounts) -> None:
    bounced = NotificationBounced(notification_id="ntf_" + "0" * 32, user_id="usr_gone")
    inbox = inbox_record("/notifications", "1", accounts.clock.now())
    await accounts.users.on_notification_bounced(bounced, inbox)


def an_address() -> Address:
    return Address("Ada", "1 Engine Street", "London", "N1 9GU", "gb")
