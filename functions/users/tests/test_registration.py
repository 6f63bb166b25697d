"""Limits on registrations, and addresses that an earlier version stored in another form."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.users.domain import EmailClaim, User
from functions.users.emails import email_key
from functions.users.metrics import REGISTRATIONS_REFUSED
from functions.users.service import GetContacts
from functions.users.tests.accounts import PASSWORD, Accounts, service_named

NOTIFICATIONS = service_named("notifications")
TODAY, EARLIER = "max@fu\u00dfball.example", "max@fussball.example"


async def register(accounts: Accounts, number: int, address: str = "192.0.2.7", *, private: bool = True) -> str:
    """Register somebody; return the reason of the refusal, or nothing."""
    try:
        await accounts.register(f"somebody{number}@example.com", address=address, private=private)
    except ServiceError as error:
        refused = error
    else:
        return ""
    assert refused.code is Code.RESOURCE_EXHAUSTED
    assert refused.retry_after is not None
    assert 0 < refused.retry_after <= 900
    return refused.reason


@pytest.mark.parametrize("private", [True, False])
async def test_a_network_address_registers_only_so_many(private: bool) -> None:
    accounts = Accounts(registrations_per_address=3)
    before = REGISTRATIONS_REFUSED.labels("address")._value.get()
    answers = [await register(accounts, number, private=private) for number in range(5)]
    assert answers == ["", "", "", "TOO_MANY_REGISTRATIONS", "TOO_MANY_REGISTRATIONS"]
    assert REGISTRATIONS_REFUSED.labels("address")._value.get() == before + 2
    assert await register(accounts, 9, "192.0.2.8") == ""
    accounts.clock.advance(timedelta(minutes=15))
    assert await register(accounts, 10) == ""
    await accounts.hasher.close()


async def test_registrations_are_limited_in_all_even_if_simultaneous() -> None:
    accounts = Accounts(registrations_in_all=4)
    tries = [register(accounts, number, f"192.0.2.{number}") for number in range(10)]
    assert Counter(await asyncio.gather(*tries)) == {"": 4, "TOO_MANY_REGISTRATIONS": 6}
    accounts.clock.advance(timedelta(minutes=15))
    assert await register(accounts, 11) == ""
    assert await accounts.store.expire(accounts.clock.now()) > 0, "counts do not stay"
    await accounts.hasher.close()


async def test_an_invalid_registration_does_not_count() -> None:
    accounts = Accounts(registrations_per_address=1)
    for _ in range(5):
        with pytest.raises(ServiceError):
            await accounts.register("not an address", address="192.0.2.7")
    assert await register(accounts, 1) == ""
    await accounts.hasher.close()


async def legacy_account(accounts: Accounts, *, verified: bool = False) -> User:
    """Register TODAY as a version without `folding` stored it."""
    user = await accounts.register(EARLIER)

    def without_folding(found: EmailClaim | None) -> tuple[EmailClaim, list[object]]:
        assert found
        return EmailClaim(found.id, found.user_id), []

    await accounts.store.update(EmailClaim, email_key(EARLIER), without_folding)  # type: ignore[arg-type] # no events
    if verified:

        def prove(found: User | None) -> tuple[User, list[object]]:
            assert found
            found.verify_email(accounts.clock.now())
            return found, []

        return await accounts.store.update(User, user.id, prove)  # type: ignore[arg-type] # no events
    return user


@pytest.mark.parametrize("written", [TODAY, TODAY.upper().replace("SS", "\u1e9e"), EARLIER])
async def test_a_legacy_account_logs_in_with_either_spelling(accounts: Accounts, written: str) -> None:
    user = await legacy_account(accounts)
    assert (await accounts.login(written)).user_id == user.id


async def test_a_login_that_shows_the_stored_address_to_be_another_domains_stops_mail_to_it(
    accounts: Accounts,
) -> None:
    user = await legacy_account(accounts)
    await accounts.login(EARLIER)
    assert (await accounts.users.get_contacts(GetContacts([user.id]), NOTIFICATIONS))[0].email_deliverable
    await accounts.login(TODAY)
    assert not (await accounts.users.get_contacts(GetContacts([user.id]), NOTIFICATIONS))[0].email_deliverable


async def test_a_verified_address_stays_deliverable(accounts: Accounts) -> None:
    user = await legacy_account(accounts, verified=True)
    await accounts.login(TODAY)
    stored = await accounts.store.get(User, user.id)
    assert stored
    assert stored.email_deliverable


@pytest.mark.parametrize("private", [True, False])
async def test_nobody_registers_the_address_that_a_legacy_account_logs_in_with(
    accounts: Accounts, private: bool
) -> None:
    user = await legacy_account(accounts)
    password = "quite another password"
    if private:
        answer = await accounts.register(TODAY, password=password, private=True)
        assert await accounts.store.get(User, answer.id) is None
    else:
        with pytest.raises(ServiceError) as raised:
            await accounts.register(TODAY, password=password)
        assert raised.value.reason == "EMAIL_TAKEN"
    assert (await accounts.login(TODAY)).user_id == user.id
    with pytest.raises(ServiceError):
        await accounts.login(TODAY, password)


async def test_addresses_in_two_domains_are_two_accounts(accounts: Accounts) -> None:
    one, other = (
        await accounts.register(EARLIER),
        await accounts.register(TODAY, password="quite another password"),
    )
    assert (await accounts.login(EARLIER, PASSWORD)).user_id == one.id
    assert (await accounts.login(TODAY, "quite another password")).user_id == other.id
    assert other.email == "max@xn--fuball-cta.example"


async def test_a_reset_by_todays_form_mails_nothing_to_the_other_domain(accounts: Accounts) -> None:
    await legacy_account(accounts)
    before = len(accounts.memory.events)
    await accounts.request_reset(TODAY)
    assert len(accounts.memory.events) == before
