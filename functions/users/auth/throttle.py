"""Limits in windows of 15 minutes: failed passwords, requests for mail, changes of address, registrations.

Failed passwords are counted for each pair of account and network address, so that a stranger's failures do not delay
the owner. They are also counted for each account, against attackers with many addresses, and for each address, against
attackers who try many accounts. A device that logged in to the account before has a separate counter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, exhausted, unauthenticated, unavailable
from functions.runtime.networks import network_key
from functions.runtime.store.port import Changes, Ref, Store
from functions.users.auth.devices import KnownDevice
from functions.users.domain import Credentials
from functions.users.metrics import REGISTRATIONS_REFUSED

T = TypeVar("T")

WINDOW = timedelta(minutes=15)
PER_ACCOUNT = 5
"""The maximum number of failures in 15 minutes for one account from one network address or one device."""
_MAX_WAITING = 64


@dataclass(frozen=True)
class ThrottleLimits:
    """Limits for 15 minutes. Settings describes them as `login_failures_*` and `registrations_*`."""

    failures_per_address: int = 100
    failures_per_account: int = 50
    registrations_per_address: int = 100
    registrations_in_all: int = 3_000


@dataclass
class FailedAttempts:
    """A counter of failed attempts in the last 15 minutes. `id` is a digest."""

    id: str
    failures: list[datetime] = field(default_factory=list)
    version: int = 0

    @property
    def expires_at(self) -> datetime | None:
        """The time at which the last failure stops counting."""
        return max(self.failures) + WINDOW if self.failures else None

    def wait(self, limit: int, now: datetime) -> float:
        """Return the seconds until another attempt is allowed, or 0 if an attempt is allowed now."""
        recent = self._recent(now)
        if len(recent) < limit:
            return 0.0
        return (recent[-limit] + WINDOW - now).total_seconds()

    def fail(self, limit: int, now: datetime) -> None:
        """Count a failure. Keep only the latest `limit` failures, because earlier ones do not affect the wait."""
        self.failures = [*self._recent(now), now][-limit:]

    def _recent(self, now: datetime) -> list[datetime]:
        return [at for at in self.failures if at + WINDOW > now]


@dataclass
class WindowCounter:
    """The number of events in a fixed window of time, which ends at `expires_at`. The id contains the window."""

    id: str
    expires_at: datetime
    count: int = 0
    version: int = 0


class _Counter(NamedTuple):
    key: str
    limit: int


@dataclass
class _QueuedLock:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Throttle:
    """Counts attempts in the store, so that the counts survive a restart and apply to all processes.

    Within a process, attempts with the same counter run one after another: each starts after the previous failure was
    counted, so that a burst of guesses does not exceed the limit. Several processes exceed it by less than their
    number.
    """

    def __init__(self, store: Store, clock: Clock, limits: ThrottleLimits) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits
        self._locks: dict[str, _QueuedLock] = {}

    async def login(
        self,
        account: str,
        credentials: Credentials | None,
        client_address: str,
        device: KnownDevice | None,
        check: Callable[[], Awaitable[T | None]],
    ) -> T:
        """Run `check` and return its result. A result of None counts as a failed login.

        `account` is the key of the account, even if there is no such account. `credentials` are None if there is none.
        Failures from before the current password was set do not count.

        Raises:
            Unauthenticated: INVALID_CREDENTIALS.
            ResourceExhausted: TOO_MANY_ATTEMPTS, with the seconds to wait; `check` is not called.
        """
        # The generation appears only in digests in the store, so that nobody can tell how often a password was changed.
        subject = f"{account}:{credentials.generation if credentials else 1}"
        if device is not None:
            return await self._attempt([_Counter(_digest(f"device:{subject}:{device.id}"), PER_ACCOUNT)], check)
        address = client_address_key(client_address)
        counters = [
            _Counter(_digest(f"from:{subject}:{address}"), PER_ACCOUNT),
            _Counter(_digest(f"strangers:{subject}"), self._limits.failures_per_account),
        ]
        if client_address:
            counters.append(_Counter(address, self._limits.failures_per_address))
        return await self._attempt(counters, check)

    async def reauthentication(self, subject: str, check: Callable[[], Awaitable[T | None]]) -> T:
        """Run `check` for a signed-in person and return its result. None counts as a failure. Raises as `login`."""
        return await self._attempt([_Counter(_digest(f"signed-in:{subject}"), PER_ACCOUNT)], check)

    async def email_change(self, user_id: str) -> None:
        """Count a request to change an account's address, even if it fails: the answer reveals taken addresses.

        Raises RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS).
        """
        counters = [_Counter(_digest(f"move:{user_id}"), PER_ACCOUNT)]
        async with self._one_at_a_time(counters[0].key):
            await self._require_below_limits(counters)
            await self._record(counters)

    async def mail_request(self, client_address: str) -> None:
        """Count a request for a mail from a network address, even if it fails. An empty address is not counted.

        Raises RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS).
        """
        if client_address:
            key = _digest(f"mail:{client_address_key(client_address)}")
            counters = [_Counter(key, self._limits.failures_per_address)]
            await self._require_below_limits(counters)
            await self._record(counters)

    async def registration(self, client_address: str) -> None:
        """Count a registration in total, and for its network address if that is known. Refused ones do not count.

        Raises RESOURCE_EXHAUSTED (TOO_MANY_REGISTRATIONS).
        """
        now = self._clock.now()
        window = int(now.timestamp() // WINDOW.total_seconds())
        ends = datetime.fromtimestamp((window + 1) * WINDOW.total_seconds(), UTC)
        counters = [("all", f"registrations:{window}", self._limits.registrations_in_all)]
        if client_address:
            key = _digest(f"registrations:{window}:{client_address_key(client_address)}")
            counters.append(("address", key, self._limits.registrations_per_address))

        def change(found: Sequence[Any]) -> Changes[str]:
            counts = [known or WindowCounter(key, ends) for known, (_, key, _) in zip(found, counters, strict=True)]
            for count, (bound, _, limit) in zip(counts, counters, strict=True):
                if count.count >= limit:
                    return Changes(bound)
                count.count += 1
            return Changes("", put=counts)

        refused = await self._store.transact([Ref(WindowCounter, key) for _, key, _ in counters], change)
        if refused:
            REGISTRATIONS_REFUSED.labels(refused).inc()
            raise exhausted(
                "TOO_MANY_REGISTRATIONS",
                "Too many accounts are being made; try again later.",
                retry_after=(ends - now).total_seconds(),
            )

    async def _attempt(self, counters: Sequence[_Counter], check: Callable[[], Awaitable[T | None]]) -> T:
        first = counters[0].key
        async with self._one_at_a_time(first):
            failed_before = await self._require_below_limits(counters)
            result = await check()
            if result is None:
                await self._record(counters)
                raise invalid_credentials()
            if failed_before:
                await self._reset(first)
            return result

    @asynccontextmanager
    async def _one_at_a_time(self, key: str) -> AsyncIterator[None]:
        queued = self._locks.setdefault(key, _QueuedLock())
        if queued.waiting >= _MAX_WAITING:
            raise unavailable("OVERLOADED", "Too many people are logging in right now.", retry_after=2.0)
        queued.waiting += 1
        try:
            async with queued.lock:
                yield
        finally:
            queued.waiting -= 1
            if not queued.waiting:
                del self._locks[key]

    async def _require_below_limits(self, counters: Sequence[_Counter]) -> bool:
        """Raise RESOURCE_EXHAUSTED if a limit is reached; otherwise return whether the first counter has failures."""
        now = self._clock.now()
        known = await self._store.get_many(FailedAttempts, [counter.key for counter in counters])
        wait = max((known[key].wait(limit, now) for key, limit in counters if key in known), default=0.0)
        if wait > 0:
            raise exhausted("TOO_MANY_ATTEMPTS", "Too many failed attempts; try again later.", retry_after=wait)
        return counters[0].key in known

    async def _record(self, counters: Sequence[_Counter]) -> None:
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[None]:
            attempts = [known or FailedAttempts(counter.key) for known, counter in zip(found, counters, strict=True)]
            for each, counter in zip(attempts, counters, strict=True):
                each.fail(counter.limit, now)
            return Changes(None, put=attempts)

        await self._store.transact([Ref(FailedAttempts, counter.key) for counter in counters], change)

    async def _reset(self, key: str) -> None:
        def change(found: Sequence[Any]) -> Changes[None]:
            return Changes(None, delete=[known for known in found if known])

        await self._store.transact([Ref(FailedAttempts, key)], change)


def invalid_credentials() -> ServiceError:
    """Return UNAUTHENTICATED (INVALID_CREDENTIALS), the same error for every failed login."""
    return unauthenticated("INVALID_CREDENTIALS", "The e-mail address or the password is wrong.")


def client_address_key(client_address: str) -> str:
    """Return the key of a network address in the store: a digest of its `network_key`."""
    return _digest(f"address:{network_key(client_address.strip()[:64])}")


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
