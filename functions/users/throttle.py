"""How often a password may be guessed, and how many accounts may be made.

Failures count by account and network address together, so that a stranger's do not hold up the owner; by account in
all, against those who have many addresses; and by address in all, against those who try many accounts. A device that
logged in to the account before is counted by itself alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, exhausted, unauthenticated, unavailable
from functions.runtime.store.port import Changes, Ref, Store
from functions.users.devices import Device
from functions.users.domain import ATTEMPTS_WINDOW, Credentials, LoginAttempts, Tally
from functions.users.metrics import REGISTRATIONS_REFUSED
from functions.users.store import address_key, email_key

T = TypeVar("T")

PER_ACCOUNT = 5
"""Failures in 15 minutes: at one account from one network address or one device."""
_MAX_WAITING = 64


@dataclass(frozen=True)
class Limits:
    """Bounds for 15 minutes; see Settings for what each means."""

    failures_per_address: int = 100
    failures_per_account: int = 50
    registrations_per_address: int = 100
    registrations_in_all: int = 3_000


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

    def __init__(self, store: Store, clock: Clock, limits: Limits) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits
        self._turns: dict[str, _Turn] = {}

    async def login(
        self,
        account: str,
        credentials: Credentials | None,
        client_address: str,
        device: Device | None,
        prove: Callable[[], Awaitable[T | None]],
    ) -> T:
        """Return what `prove` gives; None counts as a failure.

        `account` is a key of the account, real or not; `credentials` are those of a real one. Once a new password is
        set, the failures before do not count any more.

        Raises:
            Unauthenticated: INVALID_CREDENTIALS.
            ResourceExhausted: TOO_MANY_ATTEMPTS, with the seconds to wait; `prove` is not even asked.
        """
        # Known to nobody but the store, so that nobody can tell how often a password was changed.
        whose = f"{account}:{credentials.generation if credentials else 1}"
        if device is not None:
            return await self._attempt([_Bound(email_key(f"device:{whose}:{device.id}"), PER_ACCOUNT)], prove)
        address = address_key(client_address)
        bounds = [
            _Bound(email_key(f"from:{whose}:{address}"), PER_ACCOUNT),
            _Bound(email_key(f"strangers:{whose}"), self._limits.failures_per_account),
        ]
        if client_address:
            bounds.append(_Bound(address, self._limits.failures_per_address))
        return await self._attempt(bounds, prove)

    async def reauthenticate(self, credentials_key: str, prove: Callable[[], Awaitable[T | None]]) -> T:
        """Return what `prove` gives, for a person who is signed in already; see `login`."""
        return await self._attempt([_Bound(email_key(f"signed-in:{credentials_key}"), PER_ACCOUNT)], prove)

    async def _attempt(self, bounds: Sequence[_Bound], prove: Callable[[], Awaitable[T | None]]) -> T:
        first = bounds[0].key
        async with self._turn(first):
            failed_before = await self._check(bounds)
            proved = await prove()
            if proved is None:
                await self._record(bounds)
                raise wrong_credentials()
            if failed_before:
                await self._forget(first)
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
            bounds = [_Bound(address_key(f"mail:{client_address}"), self._limits.failures_per_address)]
            await self._check(bounds)
            await self._record(bounds)

    async def register(self, client_address: str) -> None:
        """Count one registration from a network address (empty: none), and of all.

        One that is refused does not count. Raises RESOURCE_EXHAUSTED (TOO_MANY_REGISTRATIONS).
        """
        now = self._clock.now()
        window = int(now.timestamp() // ATTEMPTS_WINDOW.total_seconds())
        ends = datetime.fromtimestamp((window + 1) * ATTEMPTS_WINDOW.total_seconds(), UTC)
        bounds = [("all", f"registrations:{window}", self._limits.registrations_in_all)]
        if client_address:
            key = email_key(f"registrations:{window}:{address_key(client_address)}")
            bounds.append(("address", key, self._limits.registrations_per_address))

        def change(found: Sequence[Any]) -> Changes[str]:
            tallies = [known or Tally(key, ends) for known, (_, key, _) in zip(found, bounds, strict=True)]
            for tally, (bound, _, limit) in zip(tallies, bounds, strict=True):
                if tally.count >= limit:
                    return Changes(bound)
                tally.count += 1
            return Changes("", put=tallies)

        refused = await self._store.transact([Ref(Tally, key) for _, key, _ in bounds], change)
        if refused:
            REGISTRATIONS_REFUSED.labels(refused).inc()
            raise exhausted(
                "TOO_MANY_REGISTRATIONS",
                "Too many accounts are being made; try again later.",
                retry_after=(ends - now).total_seconds(),
            )

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
