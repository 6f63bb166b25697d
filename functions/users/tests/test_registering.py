"""How many accounts may be made, and what an address of an earlier version is worth."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.users import service
from functions.users.domain import EmailClaim, User
from functions.users.metrics import REGISTRATIONS_REFUSED
from functions.users.store import email_key
from functions.users.tests.world import PASSWORD, World, service_named
from functions.users.throttle import Limits

NOTIFICATIONS = service_named("notifications")
TODAY, EARLIER = "max@fu\u00dfball.example", "max@fussball.example"


async def register(world: World, number: int, address: str = "192.0.2.7", *, discreet: bool = True) -> str:
    """Register somebody; return the reason of the refusal, or nothing."""
    try:
        await world.register(f"somebody{number}@example.com", address=address, discreet=discreet)
    except ServiceError as error:
        refused = error
    else:
        return ""
    assert refused.code is Code.RESOURCE_EXHAUSTED
    assert refused.retry_after is not None
    assert 0 < refused.retry_after <= 900
    return refused.reason


@pytest.mark.parametrize("discreet", [True, False])
async def test_a_network_address_registers_only_so_many(discreet: bool) -> None:
    world = World(limits=Limits(registrations_per_address=3))
    before = REGISTRATIONS_REFUSED.labels("address")._value.get()
    answers = [await register(world, number, discreet=discreet) for number in range(5)]
    assert answers == ["", "", "", "TOO_MANY_REGISTRATIONS", "TOO_MANY_REGISTRATIONS"]
    assert REGISTRATIONS_REFUSED.labels("address")._value.get() == before + 2
    assert await register(world, 9, "192.0.2.8") == ""
    world.clock.advance(timedelta(minutes=15))
    assert await register(world, 10) == ""
    await world.hasher.close()


async def test_all_together_register_only_so_many_also_at_once() -> None:
    world = World(limits=Limits(registrations_in_all=4))
    tries = [register(world, number, f"192.0.2.{number}") for number in range(10)]
    assert Counter(await asyncio.gather(*tries)) == {"": 4, "TOO_MANY_REGISTRATIONS": 6}
    world.clock.advance(timedelta(minutes=15))
    assert await register(world, 11) == ""
    assert await world.store.expire(world.clock.now()) > 0, "counts do not stay"
    await world.hasher.close()


async def test_what_is_no_registration_does_not_count() -> None:
    world = World(limits=Limits(registrations_per_address=1))
    for _ in range(5):
        with pytest.raises(ServiceError):
            await world.register("not an address", address="192.0.2.7")
    assert await register(world, 1) == ""
    await world.hasher.close()


async def made_by_an_earlier_version(world: World, *, verified: bool = False) -> User:
    """Max, who wrote TODAY, as a version without `folding` kept him."""
    user = await world.register(EARLIER)

    def as_before(found: EmailClaim | None) -> tuple[EmailClaim, list[object]]:
        assert found
        return EmailClaim(found.id, found.user_id), []

    await world.store.update(EmailClaim, email_key(EARLIER), as_before)  # type: ignore[arg-type] # no events
    if verified:

        def prove(found: User | None) -> tuple[User, list[object]]:
            assert found
            found.verify_email(world.clock.now())
            return found, []

        return await world.store.update(User, user.id, prove)  # type: ignore[arg-type] # no events
    return user


@pytest.mark.parametrize("written", [TODAY, TODAY.upper().replace("SS", "\u1e9e"), EARLIER])
async def test_an_account_of_an_earlier_version_logs_in_however_it_was_written(
    world: World, written: str
) -> None:
    user = await made_by_an_earlier_version(world)
    assert (await world.login(written)).user_id == user.id


async def test_a_login_that_shows_the_kept_address_to_be_anothers_stops_mail_to_it(world: World) -> None:
    user = await made_by_an_earlier_version(world)
    await world.login(EARLIER)
    assert (await service.contacts([user.id], False, NOTIFICATIONS, store=world.store))[0].email_deliverable
    await world.login(TODAY)
    assert not (await service.contacts([user.id], False, NOTIFICATIONS, store=world.store))[
        0
    ].email_deliverable


async def test_a_verified_address_stays_deliverable(world: World) -> None:
    user = await made_by_an_earlier_version(world, verified=True)
    await world.login(TODAY)
    stored = await world.store.get(User, user.id)
    assert stored
    assert stored.email_deliverable


@pytest.mark.parametrize("discreet", [True, False])
async def test_nobody_takes_the_name_that_an_earlier_account_logs_in_with(
    world: World, discreet: bool
) -> None:
    user = await made_by_an_earlier_version(world)
    password = "quite another password"
    if discreet:
        answer = await world.register(TODAY, password=password, discreet=True)
        assert await world.store.get(User, answer.id) is None
    else:
        with pytest.raises(ServiceError) as raised:
            await world.register(TODAY, password=password)
        assert raised.value.reason == "EMAIL_TAKEN"
    assert (await world.login(TODAY)).user_id == user.id
    with pytest.raises(ServiceError):
        await world.login(TODAY, password)


async def test_two_domains_are_two_people(world: World) -> None:
    one, other = await world.register(EARLIER), await world.register(TODAY, password="quite another password")
    assert (await world.login(EARLIER, PASSWORD)).user_id == one.id
    assert (await world.login(TODAY, "quite another password")).user_id == other.id
    assert other.email == "max@xn--fuball-cta.example"


async def test_nothing_is_mailed_to_the_other_domain_by_todays_name(world: World) -> None:
    await made_by_an_earlier_version(world)
    before = len(world.memory.events)
    await world.forget_password(TODAY)
    assert len(world.memory.events) == before
