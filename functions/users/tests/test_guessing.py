"""Limits on guessing passwords and accounts."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.users.auth.passwords import PasswordHasher
from functions.users.auth.throttle import FailedAttempts
from functions.users.tests.accounts import PASSWORD, Accounts

WRONG = "not the password"


async def failing(accounts: Accounts, email: str, password: str = WRONG, address: str = "") -> ServiceError:
    with pytest.raises(ServiceError) as raised:
        await accounts.login(email, password, address)
    return raised.value


@pytest.mark.parametrize("email", ["ada@example.com", "nobody@example.com", "not an address", ""])
async def test_existing_and_missing_accounts_get_the_same_answer(accounts: Accounts, email: str) -> None:
    await accounts.register("ada@example.com")
    wrong = await failing(accounts, email)
    assert wrong.code is Code.UNAUTHENTICATED
    assert repr(wrong) == "ServiceError(UNAUTHENTICATED, INVALID_CREDENTIALS, " + repr(wrong.message) + ")"
    assert wrong.message == "The e-mail address or the password is wrong."
    assert (wrong.violations, wrong.retry_after) == ((), None)
    for _ in range(4):
        await failing(accounts, email)
    limited = await failing(accounts, email)
    assert (limited.code, limited.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS")
    assert limited.retry_after == 900


class CountingHasher(PasswordHasher):
    """Counts the parameters of the hashes that passwords were checked against."""

    checked: Counter[str]

    def _matches(self, password: str, known: str) -> bool:
        self.checked[known.rpartition("$")[0].rpartition("$")[0]] += 1
        return super()._matches(password, known)


async def test_an_unknown_address_costs_the_same_hash_as_a_wrong_password() -> None:
    hasher = CountingHasher(time_cost=1, memory_kib=8, concurrency=1, queue=10)
    accounts = Accounts(hasher=hasher)
    await accounts.register("known@example.com")
    costs = []
    for email in ("known@example.com", "unknown@example.com"):
        hasher.checked = Counter()
        await failing(accounts, email)
        costs.append(hasher.checked)
    assert costs[0] == costs[1] == Counter({"$argon2id$v=19$m=8,t=1,p=1": 1})
    await hasher.close()


async def test_after_five_failures_even_the_right_password_waits_15_minutes(accounts: Accounts) -> None:
    await accounts.register()
    for _ in range(5):
        assert (await failing(accounts, "ada@example.com")).reason == "INVALID_CREDENTIALS"
        accounts.clock.advance(timedelta(minutes=1))
    limited = await failing(accounts, "ADA@example.com", PASSWORD)
    assert (limited.reason, limited.retry_after) == ("TOO_MANY_ATTEMPTS", 600)
    accounts.clock.advance(timedelta(minutes=10))
    await accounts.login()


async def test_a_strangers_failures_do_not_delay_the_owner_elsewhere(accounts: Accounts) -> None:
    await accounts.register()
    for _ in range(9):
        await failing(accounts, "ada@example.com", address="192.0.2.66")
    assert (await failing(accounts, "ada@example.com", PASSWORD, "192.0.2.66")).reason == "TOO_MANY_ATTEMPTS"
    await accounts.login(address="192.0.2.1")


async def test_strangers_with_many_addresses_delay_strangers_and_no_known_device(
    accounts: Accounts,
) -> None:
    await accounts.register()
    device = (await accounts.login(address="192.0.2.1")).device_token
    reasons = [
        (await failing(accounts, "ada@example.com", address=f"198.51.100.{number}")).reason for number in range(20)
    ]
    assert Counter(reasons) == {"INVALID_CREDENTIALS": 15, "TOO_MANY_ATTEMPTS": 5}
    unknown = await failing(accounts, "ada@example.com", PASSWORD, "192.0.2.1")
    assert unknown.reason == "TOO_MANY_ATTEMPTS"
    await accounts.login(address="192.0.2.1", device_token=device)


async def test_a_known_device_has_five_failures_of_its_own(accounts: Accounts) -> None:
    await accounts.register()
    device = (await accounts.login()).device_token
    for number in range(5):  # from any network address
        with pytest.raises(ServiceError):
            await accounts.login(password=WRONG, address=f"192.0.2.{number}", device_token=device)
    with pytest.raises(ServiceError) as raised:
        await accounts.login(address="192.0.2.99", device_token=device)
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"
    again = await accounts.login(address="192.0.2.99")
    with pytest.raises(ServiceError):
        await accounts.login(address="192.0.2.99", device_token=device)
    await accounts.login(device_token=again.device_token)


async def test_a_device_that_logs_in_again_stays_the_same_device(accounts: Accounts) -> None:
    await accounts.register()
    first = (await accounts.login()).device_token
    second = (await accounts.login(device_token=first)).device_token
    for token in (first, second, first, second, first):
        with pytest.raises(ServiceError):
            await accounts.login(password=WRONG, device_token=token)
    with pytest.raises(ServiceError) as raised:
        await accounts.login(device_token=second)
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"


async def lock_out_strangers(accounts: Accounts) -> None:
    for number in range(15):
        await failing(accounts, "ada@example.com", address=f"198.51.100.{number}")


@pytest.mark.parametrize("what", ["another's", "old", "altered", "from before a new password", "garbage"])
async def test_an_invalid_device_token_counts_as_no_device(accounts: Accounts, what: str) -> None:
    user = await accounts.register()
    await accounts.register("eve@example.com")
    token = (await accounts.login()).device_token
    password = PASSWORD
    if what == "another's":
        token = (await accounts.login("eve@example.com")).device_token
    elif what == "old":
        accounts.clock.advance(timedelta(days=180))
    elif what == "altered":
        token = token[:30] + ("A" if token[30] != "A" else "B") + token[31:]
    elif what == "garbage":
        token = "dt_" + "?" * 96
    else:
        password = "another fine password"
        await accounts.change_password(user, PASSWORD, password)
    await lock_out_strangers(accounts)
    with pytest.raises(ServiceError) as raised:
        await accounts.login(password=password, device_token=token)
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"


async def test_a_device_is_known_to_every_process_and_its_token_is_not_stored(
    accounts: Accounts,
) -> None:
    await accounts.register()
    token = (await accounts.login()).device_token
    assert token not in str(accounts.memory.__dict__)
    await lock_out_strangers(accounts)
    accounts.restart()
    await accounts.login(device_token=token)


async def test_a_new_password_lets_the_owner_in_after_a_lockout(accounts: Accounts) -> None:
    user = await accounts.register()
    await lock_out_strangers(accounts)
    await accounts.request_reset(address="192.0.2.1")
    await accounts.reset_password(await accounts.mailed_token(user), "another fine password")
    await accounts.login(password="another fine password", address="192.0.2.1")


async def test_the_window_slides(accounts: Accounts) -> None:
    await accounts.register()
    for _ in range(20):  # four every 15 minutes are below the limit
        assert (await failing(accounts, "ada@example.com")).reason == "INVALID_CREDENTIALS"
        accounts.clock.advance(timedelta(minutes=15) / 4)
    await accounts.login()


async def test_a_successful_login_resets_the_failures(accounts: Accounts) -> None:
    await accounts.register()
    for _ in range(3):
        for _ in range(4):
            await failing(accounts, "ada@example.com")
        await accounts.login()


async def test_failures_at_one_account_do_not_delay_another(accounts: Accounts) -> None:
    await accounts.register()
    for _ in range(6):
        await failing(accounts, "eve@example.com")
    await accounts.login()


async def test_failures_outlive_the_process_and_expire(accounts: Accounts) -> None:
    await accounts.register()
    for _ in range(5):
        await failing(accounts, "ada@example.com")
    accounts.restart()
    assert (await failing(accounts, "ada@example.com", PASSWORD)).reason == "TOO_MANY_ATTEMPTS"
    assert await accounts.store.expire(accounts.clock.now()) == 0
    accounts.clock.advance(timedelta(minutes=15))
    assert await accounts.store.expire(accounts.clock.now()) > 0
    assert "failures" not in str(accounts.memory.__dict__)


async def test_five_of_a_burst_of_guesses_are_checked(accounts: Accounts) -> None:
    await accounts.register()
    guesses = await asyncio.gather(*(failing(accounts, "ada@example.com") for _ in range(30)))
    assert Counter(guess.reason for guess in guesses) == {"INVALID_CREDENTIALS": 5, "TOO_MANY_ATTEMPTS": 25}


async def test_many_logins_with_the_right_password_may_run_at_once(accounts: Accounts) -> None:
    await accounts.register()
    assert len(await asyncio.gather(*(accounts.login() for _ in range(30)))) == 30


async def test_a_network_address_that_tries_many_accounts_is_delayed_too() -> None:
    accounts = Accounts(login_failures_per_address=7)
    await accounts.register()
    for number in range(7):
        await failing(accounts, f"somebody{number}@example.com", address="192.0.2.7")
    limited = await failing(accounts, "ada@example.com", PASSWORD, "192.0.2.7")
    assert limited.reason == "TOO_MANY_ATTEMPTS"
    await accounts.login(address="192.0.2.8")
    await accounts.hasher.close()


async def test_guesses_of_the_current_password_count_as_well(accounts: Accounts) -> None:
    user = await accounts.register()
    for _ in range(5):
        with pytest.raises(ServiceError):
            await accounts.change_password(user, WRONG, "another fine password")
    with pytest.raises(ServiceError) as raised:
        await accounts.change_password(user, PASSWORD, "another fine password")
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"
    assert (await accounts.login()).user_id == user.id, "the owner is not locked out by it"


async def test_no_more_failures_are_stored_than_count(accounts: Accounts) -> None:
    attempts = FailedAttempts("x")
    for _ in range(50):
        attempts.fail(5, accounts.clock.now())
    assert len(attempts.failures) == 5
