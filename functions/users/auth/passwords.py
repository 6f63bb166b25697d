"""Passwords: the rules for accepted passwords, and hashing with argon2id."""

from __future__ import annotations

import asyncio
import os
import unicodedata
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from functions.runtime.errors import ServiceError, invalid, unavailable
from functions.runtime.formats import MAX_PASSWORD, MIN_PASSWORD

if TYPE_CHECKING:
    import argon2

T = TypeVar("T")

_SALT_BYTES, _HASH_BYTES = 16, 32
# The limit before normalisation, which may shorten a text. A longer text is refused.
_MAX_RAW_PASSWORD = 512

# The most frequent passwords of published breaches, as far as they are long enough to be accepted.
_COMMON_WORDS = """
    0000000000 0123456789 0987654321 1111111111 1122334455 123123123123 1234512345 123456789a 123456789q
    1234567890 12345678910 1234567891 123456789012 1234567899 12345qwert 123qwe123qwe 147258369a 1472583690
    1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx3edc 1qazxsw23edc 741852963a 7894561230 9876543210 987654321a a123456789
    a1b2c3d4e5 aa12345678 abc1234567 abcd123456 abcd1234567 abcdefghij admin12345 admin123456 administrator
    asdf123456 asdfasdfasdf asdfghjkl1 asdfghjkl; baseball123 basketball bismillah1 changeme123 changeme1234
    charlie123 chocolate1 computer123 correcthorsebatterystaple dragon12345 football123 football12 google12345
    hello12345 iloveyou12 iloveyou123 iloveyou1234 internet123 letmein123 letmein1234 liverpool1 liverpool123
    loveme1234 manchester master12345 michael123 monkey12345 mypassword p@ssw0rd123 p@ssword123 passw0rd123
    passw0rd1234 password!! password01 password10 password11 password12 password123 password1234 password12345
    password123456 password123! password1! passwordpassword pokemon123 princess12 princess123 q1w2e3r4t5
    q1w2e3r4t5y6 qazwsx1234 qazwsxedc123 qazwsxedcrfv qwe123qwe123 qwer123456 qwerty1234 qwerty12345
    qwerty123456 qwerty1234567 qwertyqwerty qwertyuiop qwertyuiop1 qwertyuiop123 samsung123 secret1234
    starwars123 sunshine12 sunshine123 superman123 test123456 testtest123 trustno1234 unknown123 welcome123
    welcome1234 welcome12345 whatever123 zaq12wsxcde3 zxcvbnm123 zxcvbnm1234 zxcvbnmzxcvbnm
"""
_COMMON = frozenset(_COMMON_WORDS.split())


class PasswordHasher:
    """Hashes passwords with argon2id in threads: `time_cost` passes over `memory_kib` KiB, one lane.

    At most `concurrency` hashes run at once, and `queue` more wait. Beyond that, `hash` and `verify` raise UNAVAILABLE
    (OVERLOADED), so that a flood of logins is refused before it exhausts memory.
    """

    def __init__(self, *, time_cost: int, memory_kib: int, concurrency: int, queue: int) -> None:
        self._time_cost = time_cost
        self._memory_kib = memory_kib
        self._concurrency = concurrency
        self._free_places = concurrency + queue

    async def hash(self, password: str) -> str:
        """Return the encoded hash, with its salt and parameters."""
        return await self._run(lambda: self._argon2.hash(_normalised(password)))

    async def verify(self, password: str, known: str | None) -> bool:
        """Return whether `known` is the hash of `password`. If `known` is None, return False after the same time."""
        return await self._run(lambda: self._matches(password, self._decoy_hash if known is None else known))

    def is_outdated(self, known: str) -> bool:
        """Return whether `known` was made with parameters other than the current ones."""
        return self._argon2.check_needs_rehash(known)

    async def close(self) -> None:
        """Stop the threads, and cancel hashes that have not started."""
        if "_pool" in self.__dict__:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._free_places <= 0:
            raise unavailable("OVERLOADED", "Too many people are logging in right now.", retry_after=2.0)
        self._free_places -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._free_places += 1

    def _matches(self, password: str, known: str) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            return self._argon2.verify(known, _normalised(password))
        except (VerificationError, InvalidHashError):
            return False

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._concurrency, thread_name_prefix="argon2")

    @cached_property
    def _argon2(self) -> argon2.PasswordHasher:
        import argon2

        return argon2.PasswordHasher(
            self._time_cost, self._memory_kib, parallelism=1, hash_len=_HASH_BYTES, salt_len=_SALT_BYTES
        )

    @cached_property
    def _decoy_hash(self) -> str:
        """A well-formed hash of no known password. A check against it takes as long as any other check."""
        salt, tag = (b64encode(os.urandom(size)).rstrip(b"=").decode() for size in (_SALT_BYTES, _HASH_BYTES))
        return f"$argon2id$v=19$m={self._memory_kib},t={self._time_cost},p=1${salt}${tag}"


def check_password(text: str, email: str, field: str = "password") -> None:
    """Raise INVALID_ARGUMENT (WEAK_PASSWORD) for a password that is too short, too long or easy to guess."""
    password = _normalised(text)
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD or len(text) > _MAX_RAW_PASSWORD:
        raise _weak(field, f"must have {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    folded = password.casefold()
    if folded in _COMMON or len(set(folded)) < 4:
        raise _weak(field, "is among the passwords that are tried first; choose another")
    if folded in (email, email.partition("@")[0]):
        raise _weak(field, "must not be the e-mail address")


def _normalised(text: str) -> str:
    """Return the password in the form that is hashed: NFKC, so that it does not depend on the keyboard."""
    return unicodedata.normalize("NFKC", text[: _MAX_RAW_PASSWORD + 1])


def _weak(field: str, message: str) -> ServiceError:
    return invalid("The password cannot be used.", (field, message), reason="WEAK_PASSWORD")
