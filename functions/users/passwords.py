"""Hashing passwords with argon2id: in threads, a few at a time, and not more than can be answered in time."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from functions.runtime.errors import unavailable
from functions.users.rules import normal_password

if TYPE_CHECKING:
    from argon2 import PasswordHasher

T = TypeVar("T")

_SALT_BYTES, _HASH_BYTES = 16, 32


class Hasher:
    """argon2id with `time_cost` passes over `memory_kib` KiB, one lane.

    `concurrency` hashes run at once, `queue` more may wait; beyond that everything raises UNAVAILABLE
    (OVERLOADED), so that a flood of logins costs its senders, and not the memory of this process.
    """

    def __init__(self, *, time_cost: int, memory_kib: int, concurrency: int, queue: int) -> None:
        self._time_cost = time_cost
        self._memory_kib = memory_kib
        self._concurrency = concurrency
        self._room = concurrency + queue

    async def hash(self, password: str) -> str:
        """The encoded hash, with its salt and parameters."""
        return await self._run(lambda: self._argon2.hash(normal_password(password)))

    async def verify(self, password: str, known: str | None) -> bool:
        """Whether `password` is the one hashed as `known`; None: False, after the same time."""
        return await self._run(lambda: self._matches(password, self._nobodys if known is None else known))

    def is_outdated(self, known: str) -> bool:
        """Whether `known` was made by other parameters than today's."""
        return self._argon2.check_needs_rehash(known)

    async def close(self) -> None:
        """Let go of the threads; what waits is cancelled."""
        if "_pool" in self.__dict__:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._room <= 0:
            raise unavailable("OVERLOADED", "Too many people are logging in right now.", retry_after=2.0)
        self._room -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._room += 1

    def _matches(self, password: str, known: str) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            return self._argon2.verify(known, normal_password(password))
        except (VerificationError, InvalidHashError):
            return False

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._concurrency, thread_name_prefix="argon2")

    @cached_property
    def _argon2(self) -> PasswordHasher:
        from argon2 import PasswordHasher

        return PasswordHasher(
            self._time_cost, self._memory_kib, parallelism=1, hash_len=_HASH_BYTES, salt_len=_SALT_BYTES
        )

    @cached_property
    def _nobodys(self) -> str:
        """A well-formed hash of no known password: checking against it costs what any check costs."""
        salt, tag = (b64encode(os.urandom(size)).rstrip(b"=").decode() for size in (_SALT_BYTES, _HASH_BYTES))
        return f"$argon2id$v=19$m={self._memory_kib},t={self._time_cost},p=1${salt}${tag}"
