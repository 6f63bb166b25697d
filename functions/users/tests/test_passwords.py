"""Which passwords are accepted, and how they are hashed."""

from __future__ import annotations

import asyncio

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.users.auth.passwords import check_password
from functions.users.tests.accounts import PASSWORD, cheap_hasher


@pytest.mark.parametrize("given", ["0123456", "x" * 9, "x1y2" * 33, "ab" * 300, ""])
def test_a_password_has_10_to_128_characters(given: str) -> None:
    with pytest.raises(ServiceError) as raised:
        check_password(given, "ada@example.com")
    assert raised.value.reason == "WEAK_PASSWORD"
    assert "10 to 128" in raised.value.violations[0].message


@pytest.mark.parametrize(
    "given",
    ["Password123", "qwertyuiop", "1234567890", "aaaaaaaaaaaa", "ada.lovelace", "ada.lovelace@example.com"],
)
def test_a_common_password_is_refused(given: str) -> None:
    with pytest.raises(ServiceError) as raised:
        check_password(given, "ada.lovelace@example.com", "new_password")
    assert raised.value.reason == "WEAK_PASSWORD"
    assert raised.value.violations[0].field == "new_password"


@pytest.mark.parametrize("given", ["a horse, a kingdom", "x1y2" * 32, "пароль-длинный", "ten chars!"])
def test_other_passwords_are_accepted(given: str) -> None:
    check_password(given, "ada@example.com")


async def test_hashes_beyond_the_queue_are_refused_at_once() -> None:
    hasher = cheap_hasher(concurrency=1, queue=3)
    tries = await asyncio.gather(*(hasher.hash(PASSWORD) for _ in range(10)), return_exceptions=True)
    refused = [each for each in tries if isinstance(each, ServiceError)]
    assert len(refused) == 6
    assert {(each.code, each.reason) for each in refused} == {(Code.UNAVAILABLE, "OVERLOADED")}
    assert all(each.retry_after for each in refused)
    assert await hasher.verify(PASSWORD, await hasher.hash(PASSWORD)), "there is room again"
    await hasher.close()


async def test_an_invalid_or_missing_hash_matches_nothing() -> None:
    hasher = cheap_hasher()
    assert not await hasher.verify(PASSWORD, "not a hash")
    assert not await hasher.verify(PASSWORD, None)
    assert not await hasher.verify("", None)
    await hasher.close()
