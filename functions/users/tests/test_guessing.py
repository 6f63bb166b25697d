"""Guessing passwords and accounts."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from time import perf_counter

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.users.domain import LoginAttempts
from functions.users.passwords import Hasher
from functions.users.tests.world import PASSWORD, World, cheap_hasher
from functions.users.throttle import Limits

WRONG = "not the password"


async def failing(world: World, email: str, password: str = WRONG, address: str = "") -> ServiceError:
    with pytest.raises(ServiceError) as raised:
        await world.login(email, password, address)
    return raised.value


@pytest.mark.parametrize("email", ["ada@example.com", "nobody@example.com", "not an address", ""])
async def test_every_account_that_could_be_answers_alike(world: World, email: str) -> None:
    await world.register("ada@example.com")
    wrong = await failing(world, email)
    assert wrong.code is Code.UNAUTHENTICATED
    assert repr(wrong) == "ServiceError(UNAUTHENTICATED, INVALID_CREDENTIALS, " + repr(wrong.message) + ")"
    assert wrong.message == "The e-mail address or the password is wrong."
    assert (wrong.violations, wrong.retry_after) == ((), None)
    for _ in range(4):
        await failing(world, email)
    limited = await failing(world, email)
    assert (limited.code, limited.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS")
    assert limited.retry_after == 900


async def test_an_unknown_address_takes_as_long_as_a_wrong_password() -> None:
    hasher = Hasher(time_cost=2, memory_kib=19_456, concurrency=1, queue=10)
    world = World(hasher=hasher)
    for number in range(4):
        await world.register(f"known{number}@example.com")

    async def took(email: str) -> float:
        start = perf_counter()
        await failing(world, email)
        return perf_counter() - start

    known = min([await took(f"known{number}@example.com") for number in range(4)])
    unknown = min([await took(f"unknown{number}@example.com") for number in range(4)])
    assert 0.5 < unknown / known < 2
    await hasher.close()


async def test_after_five_failures_even_the_right_password_waits_15_minutes(world: World) -> None:
    await world.register()
    for _ in range(5):
        assert (await failing(world, "ada@example.com")).reason == "INVALID_CREDENTIALS"
        world.clock.advance(timedelta(minutes=1))
    limited = await failing(world, "ADA@example.com", PASSWORD)
    assert (limited.reason, limited.retry_after) == ("TOO_MANY_ATTEMPTS", 600)
    world.clock.advance(timedelta(minutes=10))
    await world.login()


async def test_a_strangers_failures_do_not_hold_up_the_owner_elsewhere(world: World) -> None:
    await world.register()
    for _ in range(9):
        await failing(world, "ada@example.com", address="192.0.2.66")
    assert (await failing(world, "ada@example.com", PASSWORD, "192.0.2.66")).reason == "TOO_MANY_ATTEMPTS"
    await world.login(address="192.0.2.1")


async def test_strangers_with_many_addresses_hold_up_strangers_and_no_known_device(world: World) -> None:
    await world.register()
    device = (await world.login(address="192.0.2.1")).device_token
    reasons = [
        (await failing(world, "ada@example.com", address=f"198.51.100.{number}")).reason
        for number in range(20)
    ]
    assert Counter(reasons) == {"INVALID_CREDENTIALS": 15, "TOO_MANY_ATTEMPTS": 5}
    unknown = await failing(world, "ada@example.com", PASSWORD, "192.0.2.1")
    assert unknown.reason == "TOO_MANY_ATTEMPTS"
    await world.login(address="192.0.2.1", device_token=device)


async def test_a_known_device_has_five_failures_of_its_own(world: World) -> None:
    await world.register()
    device = (await world.login()).device_token
    for number in range(5):  # from wherever it is
        with pytest.raises(ServiceError):
            await world.login(password=WRONG, address=f"192.0.2.{number}", device_token=device)
    with pytest.raises(ServiceError) as raised:
        await world.login(address="192.0.2.99", device_token=device)
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"
    again = await world.login(address="192.0.2.99")
    with pytest.raises(ServiceError):
        await world.login(address="192.0.2.99", device_token=device)
    await world.login(device_token=again.device_token)


async def test_a_device_that_logs_in_again_stays_the_same_device(world: World) -> None:
    await world.register()
    first = (await world.login()).device_token
    second = (await world.login(device_token=first)).device_token
    for token in (first, second, first, second, first):
        with pytest.raises(ServiceError):
            await world.login(password=WRONG, device_token=token)
    with pytest.raises(ServiceError) as raised:
        await world.login(device_token=second)
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"


async def lock_out_strangers(world: World) -> None:
    for number in range(15):
        await failing(world, "ada@example.com", address=f"198.51.100.{number}")


@pytest.mark.parametrize("what", ["another's", "old", "altered", "from before a new password", "garbage"])
async def test_a_device_token_that_proves_nothing_makes_a_stranger(world: World, what: str) -> None:
    user = await world.register()
    await world.register("eve@example.com")
    token = (await world.login()).device_token
    password = PASSWORD
    if what == "another's":
        token = (await world.login("eve@example.com")).device_token
    elif what == "old":
        world.clock.advance(timedelta(days=180))
    elif what == "altered":
        token = token[:30] + ("A" if token[30] != "A" else "B") + token[31:]
    elif what == "garbage":
        token = "dt_" + "?" * 96
    else:
        password = "another fine password"
        await world.change_password(user, PASSWORD, password)
    await lock_out_strangers(world)
    with pytest.raises(ServiceError) as raised:
        await world.login(password=password, device_token=token)
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"


async def test_a_device_is_known_to_every_process_and_its_token_is_nowhere_in_the_store(world: World) -> None:
    await world.register()
    token = (await world.login()).device_token
    assert token not in str(world.memory.__dict__)
    await lock_out_strangers(world)
    world.proof = world.new_proof(world.hasher)
    await world.login(device_token=token)


async def test_a_new_password_lets_the_owner_in_whatever_strangers_did(world: World) -> None:
    user = await world.register()
    await lock_out_strangers(world)
    await world.forget_password(address="192.0.2.1")
    await world.reset_password(await world.mailed(user), "another fine password")
    await world.login(password="another fine password", address="192.0.2.1")


async def test_the_window_slides(world: World) -> None:
    await world.register()
    for _ in range(20):  # four every 15 minutes: never too many
        assert (await failing(world, "ada@example.com")).reason == "INVALID_CREDENTIALS"
        world.clock.advance(timedelta(minutes=15) / 4)
    await world.login()


async def test_a_success_forgets_the_failures_before_it(world: World) -> None:
    await world.register()
    for _ in range(3):
        for _ in range(4):
            await failing(world, "ada@example.com")
        await world.login()


async def test_failures_of_one_account_do_not_hold_up_another(world: World) -> None:
    await world.register()
    for _ in range(6):
        await failing(world, "eve@example.com")
    await world.login()


async def test_failures_outlive_the_process_and_are_forgotten_in_time(world: World) -> None:
    await world.register()
    for _ in range(5):
        await failing(world, "ada@example.com")
    world.proof = world.new_proof(world.hasher)
    assert (await failing(world, "ada@example.com", PASSWORD)).reason == "TOO_MANY_ATTEMPTS"
    assert await world.store.expire(world.clock.now()) == 0
    world.clock.advance(timedelta(minutes=15))
    assert await world.store.expire(world.clock.now()) > 0
    assert "failures" not in str(world.memory.__dict__)


async def test_a_burst_of_guesses_gets_five_answers(world: World) -> None:
    await world.register()
    guesses = await asyncio.gather(*(failing(world, "ada@example.com") for _ in range(30)))
    assert Counter(guess.reason for guess in guesses) == {"INVALID_CREDENTIALS": 5, "TOO_MANY_ATTEMPTS": 25}


async def test_many_who_know_the_password_may_come_at_once(world: World) -> None:
    await world.register()
    assert len(await asyncio.gather(*(world.login() for _ in range(30)))) == 30


async def test_a_network_address_that_tries_many_accounts_is_held_up_too() -> None:
    world = World(limits=Limits(failures_per_address=7))
    await world.register()
    for number in range(7):
        await failing(world, f"somebody{number}@example.com", address="192.0.2.7")
    limited = await failing(world, "ada@example.com", PASSWORD, "192.0.2.7")
    assert limited.reason == "TOO_MANY_ATTEMPTS"
    await world.login(address="192.0.2.8")
    await world.hasher.close()


async def test_guessing_the_present_password_counts_as_well(world: World) -> None:
    user = await world.register()
    for _ in range(5):
        with pytest.raises(ServiceError):
            await world.change_password(user, WRONG, "another fine password")
    with pytest.raises(ServiceError) as raised:
        await world.change_password(user, PASSWORD, "another fine password")
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"
    assert (await world.login()).user_id == user.id, "the owner is not locked out by it"


async def test_no_more_failures_are_remembered_than_count(world: World) -> None:
    attempts = LoginAttempts("x")
    for _ in range(50):
        attempts.fail(5, world.clock.now())
    assert len(attempts.failures) == 5


async def test_more_hashes_than_can_be_answered_in_time_are_refused_at_once() -> None:
    hasher = cheap_hasher(concurrency=1, queue=3)
    tries = await asyncio.gather(*(hasher.hash(PASSWORD) for _ in range(10)), return_exceptions=True)
    refused = [each for each in tries if isinstance(each, ServiceError)]
    assert len(refused) == 6
    assert {(each.code, each.reason) for each in refused} == {(Code.UNAVAILABLE, "OVERLOADED")}
    assert all(each.retry_after for each in refused)
    assert await hasher.verify(PASSWORD, await hasher.hash(PASSWORD)), "there is room again"
    await hasher.close()


async def test_a_hash_that_is_none_matches_nothing() -> None:
    hasher = cheap_hasher()
    assert not await hasher.verify(PASSWORD, "not a hash")
    assert not await hasher.verify(PASSWORD, None)
    assert not await hasher.verify("", None)
    await hasher.close()
