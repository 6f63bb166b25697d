"""The key set of access tokens as a verifier keeps it: one copy in a process, one fetch at a time."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unavailable
from observability import context

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

log = logging.getLogger("shop.tokens")

REFRESH_AFTER = 20.0
"""Seconds after which a copy is fetched again in the background, while callers go on with it."""
WAIT_AFTER = 40.0
"""Seconds after which callers wait for that fetch, so that a revocation is known within a minute."""
STALE_AFTER = 300.0
"""Seconds after which a copy is refused: what was revoked since then is not known (docs/decisions/0008)."""
_WAIT_SECONDS = 1.0
_FETCH_SECONDS = 5.0
_UNKNOWN_KEY_SECONDS = 5.0  # between two fetches for key ids that are not known
_KNOWN_AHEAD_SECONDS = 60.0  # a key is published at least this long before it signs
_LONGEST_PAUSE = 8.0  # seconds between two fetches in an outage

Jwks = Callable[[], Awaitable[str]]


class Void(msgspec.Struct, frozen=True):
    """Tokens that must not be believed any more, as the key set lists them.

    `outdated` maps the digest of a person or session to the time (seconds since 1970) before which their tokens are
    void.
    """

    outdated: dict[str, float] = {}

    def has(self, person: str, session: str, issued_at: float) -> bool:
        """Whether a token of this person and session (digests), issued at this time, is void."""
        outdated = self.outdated
        return issued_at < outdated.get(person, 0.0) or issued_at < outdated.get(session, 0.0)


class KeySet(msgspec.Struct, frozen=True):
    """One copy: public keys by key id, what is void, and the keys alone as RFC 7517 JSON."""

    keys: Mapping[str, Ed25519PublicKey]
    void: Void
    public: bytes


class KeySetCache:
    """The newest key set that could be fetched, for every verifier of the process.

    One fetch runs at a time, in a context of its own: no caller's deadline ends it, no caller's trace has it. Only a
    fetch that succeeds makes the copy young; after one that failed the next waits 1, 2, 4, then 8 seconds. A copy is
    refreshed in the background after 20 seconds and waited for after 40; one of over 5 minutes is not used any more.
    """

    def __init__(self, jwks: Jwks, clock: Clock) -> None:
        self._jwks = jwks
        self._clock = clock
        self._held: KeySet | None = None
        self._fetched_at = -math.inf
        self._retry_at = -math.inf
        self._failures = 0
        self._fetching: asyncio.Task[None] | None = None

    async def current(self, kid: str | None = None) -> KeySet:
        """The key set; with `kid`, fetched again if that key is not in it and the copy is over 5 seconds old.

        Raises UNAVAILABLE (KEYS_UNAVAILABLE) when there is no copy of the last 5 minutes.
        """
        held, age = self._held, self._age()
        known = held is not None and (kid is None or kid in held.keys)
        if held is not None and known and age < REFRESH_AFTER:
            return held
        if known or age >= _UNKNOWN_KEY_SECONDS:
            self._start()
        if self._fetching is not None:
            await self._wait(known, age)
        held, age = self._held, self._age()
        if held is None or age >= STALE_AFTER:
            raise _keys_unavailable()
        if kid is not None and kid not in held.keys and age >= _KNOWN_AHEAD_SECONDS:
            raise _keys_unavailable()  # it may be a new one
        return held

    async def published(self) -> bytes:
        """The keys alone, for publication; those of an outdated copy while there are no others."""
        try:
            return (await self.current()).public
        except ServiceError:
            if self._held is None:
                raise
            return self._held.public

    def forget(self) -> None:
        """Fetch before the next use: the keys have changed."""
        self._fetched_at = self._retry_at = -math.inf

    def _age(self) -> float:
        age = self._now() - self._fetched_at
        return age if age >= 0 else math.inf  # the clock was set back

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _start(self) -> None:
        if self._fetching is None and self._now() >= self._retry_at:
            self._fetching = asyncio.create_task(self._fetch(), name="key-set", context=Context())

    async def _wait(self, known: bool, age: float) -> None:
        """Wait for the fetch under way, as long as the copy at hand is not good enough."""
        fetching = self._fetching
        if fetching is None or (known and age < WAIT_AFTER):
            return
        if not known or age >= STALE_AFTER:
            await asyncio.wait([fetching])
        elif not self._failures:  # in an outage nobody waits for what will not come
            await asyncio.wait([fetching], timeout=_WAIT_SECONDS)

    async def _fetch(self) -> None:
        context.enter(context.incoming(None, None))
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                self._held = parse(await self._jwks())
        except (ServiceError, TimeoutError) as error:
            self._failed(error)
        except Exception as error:
            log.exception("key_set_fetch_crashed")
            self._failed(error)
        else:
            self._fetched_at = self._now()
            self._retry_at, self._failures = -math.inf, 0
        finally:
            self._fetching = None

    def _failed(self, error: Exception) -> None:
        pause = min(2.0**self._failures, _LONGEST_PAUSE)
        self._failures += 1
        self._retry_at = self._now() + pause
        reason = error.reason if isinstance(error, ServiceError) else type(error).__name__
        log.warning("key_set_fetch_failed", extra={"reason": reason, "retry_in": pause})


def parse(jwks: str) -> KeySet:
    """The key set of RFC 7517 JSON text; keys other than Ed25519 are left out.

    Raises UNAVAILABLE (KEYS_UNAVAILABLE) for a text without any.
    """
    import jwt  # 50 ms of cold start, needed first here

    try:
        keys = jwt.PyJWKSet.from_json(jwks).keys
        members = msgspec.json.decode(jwks)["keys"]
        void = msgspec.json.decode(jwks, type=Void)
    except (jwt.PyJWTError, ValueError):
        raise _keys_unavailable() from None
    found: dict[str, Any] = {key.key_id: key.key for key in keys if key.key_id and key.key_type == "OKP"}
    if not found:
        raise _keys_unavailable()
    return KeySet(found, void, msgspec.json.encode({"keys": members}))


def subject_digest(subject: str) -> str:
    """Stands for a person or a session where the keys are published, so that no id is."""
    return sha256(subject.encode()).hexdigest()[:32]


def _keys_unavailable() -> ServiceError:
    return unavailable("KEYS_UNAVAILABLE", "The keys of access tokens cannot be had just now.")
