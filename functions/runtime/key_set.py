"""The key set of access tokens as a verifier keeps it: one copy in a process, one fetch at a time."""

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
"""Seconds after which a copy is fetched again in the background, while callers go on with it."""
WAIT_AFTER = 40.0
"""Seconds after which callers wait for that fetch, so that a revocation is known within a minute."""
STALE_AFTER = 300.0
"""Seconds after which a copy is refused: what was revoked since then is not known (docs/decisions/0007)."""
_WAIT_SECONDS = 1.0
_FETCH_SECONDS = 5.0
_UNKNOWN_KEY_SECONDS = 5.0  # between two fetches for key ids that are not known
_KNOWN_AHEAD_SECONDS = 60.0  # a key is published at least this long before it signs
_LONGEST_PAUSE = 8.0  # seconds between two fetches in an outage
_REFRESH_TAKES = 10.0  # seconds: so much later a session that ended may still have issued a token

REVOCATIONS_KEPT = 17 * 60.0
"""Seconds after which no token concerned lives any more: 15 minutes, and clocks that differ."""
MOST_REVOCATIONS = 100_000
"""Of more, the oldest are replaced by one for everybody: see `RevocationList`. They take some 30 MB."""


class Revoked(NamedTuple):
    """Tokens of one person or session (`digest`) issued before `void_before` are void; said `at`. In seconds."""

    digest: str
    at: float
    void_before: float


class Fetched(NamedTuple):
    """One answer of the users service: RFC 7517 JSON text, and a page of revocations, oldest first.

    `next_cursor` is empty at the end; `as_of` is what to ask for next time.
    """

    jwks: str
    revoked: Sequence[Revoked] = ()
    next_cursor: str = ""
    as_of: float = 0.0


KeySource = Callable[[float | None, str], Awaitable[Fetched]]
"""Asks for the keys and for revocations since a time (None: all), by page; may raise ServiceError."""


class RevocationList:
    """Access tokens that must not be believed any more.

    Holds the last `most` revocations. Beyond that the oldest are forgotten, and whoever's token was issued before they
    were said has to refresh it: then nobody who was revoked gets in, and nobody else is kept out for long.
    """

    def __init__(self, most: int = MOST_REVOCATIONS) -> None:
        self._most = most
        self._revoked: OrderedDict[str, Revoked] = OrderedDict()  # oldest first
        self._void_before = 0.0

    def has(self, person: str, session: str, issued_at: float) -> bool:
        """Whether a token of this person and session (digests), issued at this time, is void."""
        if issued_at < self._void_before:
            return True
        for digest in (person, session):
            revoked = self._revoked.get(digest)
            if revoked is not None and issued_at < revoked.void_before:
                return True
        return False

    def add(self, revoked: Sequence[Revoked]) -> None:
        """Keep these, too; later ones than those there are."""
        for each in revoked:
            known = self._revoked.get(each.digest)
            if known is None or known.void_before < each.void_before:
                self._revoked[each.digest] = each
                self._revoked.move_to_end(each.digest)
        while len(self._revoked) > self._most:
            _, oldest = self._revoked.popitem(last=False)
            self._void_before = max(self._void_before, oldest.at + _REFRESH_TAKES)

    def prune(self, now: float) -> None:
        """Forget those of which no token lives any more."""
        while self._revoked:
            digest, oldest = next(iter(self._revoked.items()))
            if oldest.at + REVOCATIONS_KEPT > now:
                return
            del self._revoked[digest]

    def __len__(self) -> int:
        return len(self._revoked)


class KeySet(NamedTuple):
    """One copy: public keys by key id, what is void, and the keys as RFC 7517 JSON."""

    keys: Mapping[str, Ed25519PublicKey]
    void: RevocationList
    public: bytes


class KeySetCache:
    """The newest key set that could be fetched, for every verifier of the process.

    One fetch runs at a time, in a context of its own: no caller's deadline ends it, no caller's trace has it. Only a
    fetch that succeeds makes the copy young; after one that failed the next waits 1, 2, 4, then 8 seconds. A copy is
    refreshed in the background after 20 seconds and waited for after 40; one of over 5 minutes is not used any more.
    """

    def __init__(self, source: KeySource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._held: KeySet | None = None
        self._void = RevocationList()
        self._as_of: float | None = None
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
        """Take over the keys and what was revoked since the last time, page by page."""
        since = self._as_of
        if since is not None and since + REVOCATIONS_KEPT < self._now():
            since = None
        fetched = await self._page(since, "")
        as_of, jwks = fetched.as_of, fetched.jwks
        self._void.add(fetched.revoked)
        while fetched.next_cursor:
            fetched = await self._page(since, fetched.next_cursor)
            self._void.add(fetched.revoked)
        self._void.prune(self._now())
        self._held = KeySet(parse(jwks), self._void, jwks.encode())
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
    """The public keys of RFC 7517 JSON text by key id; keys other than Ed25519 are left out.

    Raises UNAVAILABLE (KEYS_UNAVAILABLE) for a text without any.
    """
    import jwt  # 50 ms of cold start, needed first here

    try:
        keys = jwt.PyJWKSet.from_json(jwks).keys
    except (jwt.PyJWTError, ValueError):
        raise _keys_unavailable() from None
    found = {key.key_id: key.key for key in keys if key.key_id and key.key_type == "OKP"}
    if not found:
        raise _keys_unavailable()
    return found


def subject_digest(subject: str) -> str:
    """Stands for a person or a session where the keys are published, so that no id is."""
    return sha256(subject.encode()).hexdigest()[:32]


def _keys_unavailable() -> ServiceError:
    return unavailable("KEYS_UNAVAILABLE", "The keys of access tokens cannot be had just now.")
