"""How often a password may be guessed: five times in 15 minutes an account, more often a network address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, exhausted, unauthenticated, unavailable
from functions.runtime.store.port import Changes, Ref, Store
from functions.users.domain import LoginAttempts
from functions.users.store import address_key

T = TypeVar("T")

PER_ACCOUNT = 5
_MAX_WAITING = 64


class _Bound(NamedTuple):
    key: str
    limit: int


@dataclass
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Throttle:
    """Counts failures in the store, so that they outlive the process and hold for all of them.

    Attempts on one account take turns within a process, each seeing the failures of those before: a burst of
    guesses is no way around the bound (several processes exceed it by less than their number).
    """

    def __init__(self, store: Store, clock: Clock, *, per_address: int) -> None:
        self._store = store
        self._clock = clock
        self._per_address = per_address
        self._turns: dict[str, _Turn] = {}

    async def attempt(self, account: str, client_address: str, prove: Callable[[], Awaitable[T | None]]) -> T:
        """What `prove` gives; None counts as a failure and raises UNAUTHENTICATED (INVALID_CREDENTIALS).

        `account` is a key of the account, real or not. After too many failures `prove` is not even asked:
        RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS), with the seconds to wait.
        """
        bounds = [_Bound(account, PER_ACCOUNT)]
        if client_address:
            bounds.append(_Bound(address_key(client_address), self._per_address))
        async with self._turn(account):
            failed_before = await self._check(bounds)
            proved = await prove()
            if proved is None:
                await self._record(bounds)
                raise wrong_credentials()
            if failed_before:
                await self._forget(account)
            return proved

    async def move(self, user_id: str) -> None:
        """Count one change of an account's address, whatever becomes of it: it tells who has an account.

        Raises RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS).
        """
        bounds = [_Bound(address_key(f"move:{user_id}"), PER_ACCOUNT)]
        async with self._turn(bounds[0].key):
            await self._check(bounds)
            await self._record(bounds)

    async def spend(self, client_address: str) -> None:
        """Count one request from a network address (empty: none) that costs somebody a mail, whatever becomes of it.

        Raises RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS).
        """
        if client_address:
            bounds = [_Bound(address_key(f"mail:{client_address}"), self._per_address)]
            await self._check(bounds)
            await self._record(bounds)

    @asynccontextmanager
    async def _turn(self, account: str) -> AsyncIterator[None]:
        turn = self._turns.setdefault(account, _Turn())
        if turn.waiting >= _MAX_WAITING:
            raise unavailable("OVERLOADED", "Too many people are logging in right now.", retry_after=2.0)
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[account]

    async def _check(self, bounds: Sequence[_Bound]) -> bool:
        """Whether the account failed before; raises when a bound is reached."""
        now = self._clock.now()
        known = await self._store.get_many(LoginAttempts, [bound.key for bound in bounds])
        wait = max((known[key].wait(limit, now) for key, limit in bounds if key in known), default=0.0)
        if wait > 0:
            raise exhausted(
                "TOO_MANY_ATTEMPTS", "Too many failed attempts; try again later.", retry_after=wait
            )
        return bounds[0].key in known

    async def _record(self, bounds: Sequence[_Bound]) -> None:
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[None]:
            attempts = [known or LoginAttempts(bound.key) for known, bound in zip(found, bounds, strict=True)]
            for each, bound in zip(attempts, bounds, strict=True):
                each.fail(bound.limit, now)
            return Changes(None, put=attempts)

        await self._store.transact([Ref(LoginAttempts, bound.key) for bound in bounds], change)

    async def _forget(self, account: str) -> None:
        def change(found: Sequence[Any]) -> Changes[None]:
            return Changes(None, delete=[known for known in found if known])

        await self._store.transact([Ref(LoginAttempts, account)], change)


def wrong_credentials() -> ServiceError:
    """UNAUTHENTICATED (INVALID_CREDENTIALS): one answer for whatever was wrong."""
    return unauthenticated("INVALID_CREDENTIALS", "The e-mail address or the password is wrong.")
