"""The copy of the key set and the revocations that verifiers use. A process has one copy, and one fetch at a time."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unavailable
from observability import context

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

log = logging.getLogger("shop.tokens")

REFRESH_AFTER = 20.0
"""Age in seconds at which the copy is fetched again in the background, while it is still used."""
WAIT_AFTER = 40.0
"""Age in seconds at which callers wait for that fetch, so that a revocation takes effect within a minute."""
STALE_AFTER = 300.0
"""Age in seconds at which the copy is no longer used, because it lacks later revocations (docs/decisions/0007)."""
_WAIT_SECONDS = 1.0
_FETCH_SECONDS = 5.0
_UNKNOWN_KEY_SECONDS = 5.0  # minimum between two fetches for unknown key ids
_KNOWN_AHEAD_SECONDS = 60.0  # a key is published at least this long before it signs
_LONGEST_PAUSE = 8.0  # seconds between two fetches in an outage
_REFRESH_TAKES = 10.0  # seconds after the end of a session in which a running refresh may still issue a token

REVOCATIONS_KEPT = 17 * 60.0
"""Seconds after which every revoked token has expired: 15 minutes, plus a margin for clocks that differ."""
MOST_REVOCATIONS = 100_000
"""The maximum number of entries of a `RevocationList`, which take about 30 MB."""


class Revoked(NamedTuple):
    """A revocation, made at `at`, of the tokens of one person or session that were issued before `void_before`.

    `digest` is the digest of the person's or session's id. Times are in seconds since 1970.
    """

    digest: str
    at: float
    void_before: float


class Fetched(NamedTuple):
    """One response of the users service: RFC 7517 JSON text, and a page of revocations, oldest first.

    `next_cursor` is empty on the last page. `as_of` is the time from which the next fetch asks for revocations.
    """

    jwks: str
    revoked: Sequence[Revoked] = ()
    next_cursor: str = ""
    as_of: float = 0.0


KeySource = Callable[[float | None, str], Awaitable[Fetched]]
"""Fetches the keys, and a page of the revocations since a time (None: all). May raise ServiceError."""


class RevocationList:
    """The revoked access tokens.

    The list keeps the last `limit` revocations. Above the limit it drops the oldest, and every token issued before
    them counts as revoked. So no revoked token is accepted, but all other callers have to refresh their tokens once.
    """

    def __init__(self, limit: int = MOST_REVOCATIONS) -> None:
        self._limit = limit
        self._revoked: OrderedDict[str, Revoked] = OrderedDict()  # oldest first
        self._void_before = 0.0

    def has(self, person: str, session: str, issued_at: float) -> bool:
        """Return whether a token of this person and session (digests), issued at this time, is revoked."""
        if issued_at < self._void_before:
            return True
        for digest in (person, session):
            revoked = self._revoked.get(digest)
            if revoked is not None and issued_at < revoked.void_before:
                return True
        return False

    def add(self, revoked: Sequence[Revoked]) -> None:
        """Add revocations, which must be later than all revocations added before."""
        for each in revoked:
            known = self._revoked.get(each.digest)
            if known is None or known.void_before < each.void_before:
                self._revoked[each.digest] = each
                self._revoked.move_to_end(each.digest)
        while len(self._revoked) > self._limit:
            _, oldest = self._revoked.popitem(last=False)
            self._void_before = max(self._void_before, oldest.at + _REFRESH_TAKES)

    def prune(self, now: float) -> None:
        """Drop revocations whose tokens have all expired."""
        while self._revoked:
            digest, oldest = next(iter(self._revoked.items()))
            if oldest.at + REVOCATIONS_KEPT > now:
                return
            del self._revoked[digest]

    def __len__(self) -> int:
        return len(self._revoked)


class KeySet(NamedTuple):
    """One copy: public keys by key id, revocations, and the keys as RFC 7517 JSON."""

    keys: Mapping[str, Ed25519PublicKey]
    revoked: RevocationList
    public: bytes


class KeySetCache:
    """A cache of the newest key set that could be fetched, for every verifier of the process.

    One fetch runs at a time, in its own context, so that it has no caller's deadline and is in no caller's trace. The
    copy is refreshed in the background after 20 seconds; callers wait for the refresh after 40 seconds; after 5 minutes
    the copy is no longer used. After a failed fetch the next waits 1, 2, 4, then 8 seconds.
    """

    def __init__(self, source: KeySource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._held: KeySet | None = None
        self._revocations = RevocationList()
        self._as_of: float | None = None
        self._fetched_at = -math.inf
        self._retry_at = -math.inf
        self._failures = 0
        self._fetching: asyncio.Task[None] | None = None

    async def current(self, kid: str | None = None) -> KeySet:
        """Return the key set. If it lacks the key `kid` and is at least 5 seconds old, fetch it first.

        Raises UNAVAILABLE (KEYS_UNAVAILABLE) if the last successful fetch is 5 minutes ago, or if the key set lacks
        `kid` and is a minute old, because the key may have been published since.
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
            raise _keys_unavailable()  # the key may be newer than the copy
        return held

    async def published(self) -> bytes:
        """Return the public keys as JSON, from an outdated copy if no newer one can be fetched."""
        try:
            return (await self.current()).public
        except ServiceError:
            if self._held is None:
                raise
            return self._held.public

    def forget(self) -> None:
        """Fetch the key set again before the next use, because it has changed."""
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
        """Wait for the running fetch if the copy lacks the key or is too old."""
        fetching = self._fetching
        if fetching is None or (known and age < WAIT_AFTER):
            return
        if not known or age >= STALE_AFTER:
            await asyncio.wait([fetching])
        elif not self._failures:  # in an outage callers do not wait
            await asyncio.wait([fetching], timeout=_WAIT_SECONDS)

    async def _fetch(self) -> None:
        context.enter(context.incoming(None, None))
        try:
            await self._read()
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

    async def _read(self) -> None:
        """Fetch the keys, and the revocations since the last fetch, page by page."""
        since = self._as_of
        if since is not None and since + REVOCATIONS_KEPT < self._now():
            since = None
        fetched = await self._page(since, "")
        as_of, jwks = fetched.as_of, fetched.jwks
        self._revocations.add(fetched.revoked)
        while fetched.next_cursor:
            fetched = await self._page(since, fetched.next_cursor)
            self._revocations.add(fetched.revoked)
        self._revocations.prune(self._now())
        self._held = KeySet(parse(jwks), self._revocations, jwks.encode())
        self._as_of = as_of

    async def _page(self, since: float | None, cursor: str) -> Fetched:
        async with asyncio.timeout(_FETCH_SECONDS):
            return await self._source(since, cursor)

    def _failed(self, error: Exception) -> None:
        pause = min(2.0**self._failures, _LONGEST_PAUSE)
        self._failures += 1
        self._retry_at = self._now() + pause
        reason = error.reason if isinstance(error, ServiceError) else type(error).__name__
        log.warning("key_set_fetch_failed", extra={"reason": reason, "retry_in": pause})


def parse(jwks: str) -> dict[str, Any]:
    """Return the Ed25519 keys of RFC 7517 JSON text, by key id.

    Raises UNAVAILABLE (KEYS_UNAVAILABLE) if the text has no such key.
    """
    import jwt  # imported at first use, because it adds 50 ms to a cold start

    try:
        keys = jwt.PyJWKSet.from_json(jwks).keys
    except (jwt.PyJWTError, ValueError):
        raise _keys_unavailable() from None
    found = {key.key_id: key.key for key in keys if key.key_id and key.key_type == "OKP"}
    if not found:
        raise _keys_unavailable()
    return found


def subject_digest(subject: str) -> str:
    """Return a digest of a person's or session's id. Revocations contain it, so that no id is published."""
    return sha256(subject.encode()).hexdigest()[:32]


def _keys_unavailable() -> ServiceError:
    return unavailable("KEYS_UNAVAILABLE", "The keys of access tokens are not available at the moment.")
