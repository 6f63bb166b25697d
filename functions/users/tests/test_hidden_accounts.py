"""Neither the answer nor the work that it takes shows whether an address has an account.

Work is counted, not timed: the hashes, reads and writes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from events.catalog import UserChallenged, UserRegistered
from functions.runtime.clock import ManualClock
from functions.runtime.errors import ServiceError
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import Changes, IdempotencyRecord, Ref
from functions.runtime.tests.support import recorded
from functions.users.auth.challenges import Purpose
from functions.users.auth.passwords import PasswordHasher
from functions.users.domain import User
from functions.users.store import MAPPINGS
from functions.users.tests.accounts import PASSWORD, Accounts

KNOWN, UNKNOWN = "ada@example.com", "nobody@example.com"
OTHER = "another horse, another kingdom"


class CountedHasher(PasswordHasher):
    """Records each hash."""

    def __init__(self, work: list[str]) -> None:
        super().__init__(time_cost=1, memory_kib=8, concurrency=2, queue=100)
        self._work = work

    async def hash(self, password: str) -> str:
        self._work.append("hash")
        return await super().hash(password)

    async def verify(self, password: str, known: str | None) -> bool:
        self._work.append("verify")
        return await super().verify(password, known)


class CountedStore(MemoryStore):
    """Records each call, and whether it wrote."""

    work: list[str]

    async def get(self, cls: type[Any], entity_id: str) -> Any:
        self.work.append(f"get {cls.__name__}")
        return await super().get(cls, entity_id)

    async def get_many(self, cls: type[Any], ids: Sequence[str]) -> Any:
        self.work.append(f"get {len(ids)} {cls.__name__}")
        return await super().get_many(cls, ids)

    async def transact(
        self,
        refs: Sequence[Ref],
        change: Callable[[Sequence[Any]], Changes[Any]],
        *,
        idempotency: IdempotencyRecord | None = None,
        likely_new: bool = False,
    ) -> Any:
        writes: list[bool] = []

        def seen(found: Sequence[Any]) -> Changes[Any]:
            changes = change(found)
            writes.append(bool(changes.put or changes.delete))
            return changes

        result = await super().transact(refs, seen, idempotency=idempotency, likely_new=likely_new)
        self.work.append(f"{'write' if writes[-1] else 'read'} {[ref.type.__name__ for ref in refs]}")
        return result


@pytest.fixture
async def work() -> list[str]:
    return []


@pytest.fixture
async def accounts(work: list[str]) -> AsyncIterator[Accounts]:
    """A users service with one account, whose work is recorded."""
    store = CountedStore(MAPPINGS, ManualClock())
    store.work = work
    accounts = Accounts(store, CountedHasher(work))
    await accounts.register(KNOWN)
    yield accounts
    await accounts.hasher.close()


Use = Callable[[Accounts, str], Awaitable[Any]]
USES: dict[str, Use] = {
    "a login": lambda accounts, email: accounts.login(email, "not the password", "192.0.2.1"),
    "a login with a device token": lambda accounts, email: accounts.login(
        email, "not the password", "192.0.2.1", "dt_" + "A" * 96
    ),
    "a login as written before": lambda accounts, email: accounts.login(
        email.replace("example", "fu\u00dfball.example"), "not the password"
    ),
    "a reset": lambda accounts, email: accounts.request_reset(email, "192.0.2.1"),
    "a registration": lambda accounts, email: accounts.register(email, password=OTHER, private=True),
}


async def worked(accounts: Accounts, work: list[str], use: Use, email: str) -> list[str]:
    """Return the work of this use case, whether it is refused or not."""
    work.clear()
    await asyncio.gather(use(accounts, email), return_exceptions=True)
    return list(work)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_known_and_an_unknown_address_cause_the_same_work(
    accounts: Accounts, work: list[str], use: Use
) -> None:
    await worked(accounts, work, use, UNKNOWN)  # work that a process does only once
    known, unknown = [await worked(accounts, work, use, email) for email in (KNOWN, UNKNOWN)]
    assert known == unknown
    assert len(known) > 1


@pytest.mark.parametrize("attempts", [1, 10])
async def test_a_second_registration_gets_the_same_answer_and_changes_nothing(
    accounts: Accounts, attempts: int
) -> None:
    new = await accounts.register(UNKNOWN, name="Eve", private=True)
    again = new
    for _ in range(attempts):
        again = await accounts.register(KNOWN.upper(), password=OTHER, name="Eve", private=True)
    assert again == replace(new, id=again.id, email=KNOWN)
    assert (await accounts.login(KNOWN, PASSWORD)).user_id != again.id
    with pytest.raises(ServiceError):
        await accounts.login(KNOWN, OTHER)
    assert await accounts.store.get(User, again.id) is None


async def test_the_owner_of_the_address_is_notified_at_most_three_times_and_may_set_a_new_password(
    accounts: Accounts,
) -> None:
    user_id = (await accounts.login(KNOWN)).user_id
    for _ in range(5):
        await accounts.register(KNOWN, password=OTHER, private=True)
    told = UserChallenged(user_id=user_id, purpose="PASSWORD_RESET", occasion="REGISTRATION")
    assert await recorded(accounts.store) == [UserRegistered(user_id=user_id), told, told, told]
    owner = await accounts.store.get(User, user_id)
    assert owner
    await accounts.reset_password(await accounts.mailed_token(owner, Purpose.REGISTRATION), OTHER)
    assert (await accounts.login(KNOWN, OTHER)).user_id == user_id


async def test_one_of_50_simultaneous_private_registrations_creates_the_account(accounts: Accounts) -> None:
    tries = [accounts.register(UNKNOWN, private=True) for _ in range(50)]
    answers = await asyncio.gather(*tries)
    user_id = (await accounts.login(UNKNOWN)).user_id
    assert len({answer.id for answer in answers}) == 50
    assert [answer.id for answer in answers].count(user_id) == 1
    assert {answer.version for answer in answers} == {1}


async def test_changes_of_address_reveal_accounts_at_most_five_times(accounts: Accounts) -> None:
    mover = await accounts.register("mover@example.com")
    tries = [accounts.update(mover, email=KNOWN) for _ in range(8)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    reasons = Counter(each.reason for each in outcomes if isinstance(each, ServiceError))
    assert reasons == {"EMAIL_TAKEN": 5, "TOO_MANY_ATTEMPTS": 3}
    accounts.clock.advance(timedelta(minutes=15))
    assert (await accounts.update(mover, email=UNKNOWN)).pending_until
