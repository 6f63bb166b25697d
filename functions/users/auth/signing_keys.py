"""The signing keys of access tokens: the current key signs, the upcoming key is published, retired keys verify."""

from __future__ import annotations

import json
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from events.catalog import Payload, SweepDue
from functions.runtime.clock import Clock
from functions.runtime.errors import exhausted
from functions.runtime.identity import Identity, require_admin
from functions.runtime.inbox import InboxRecord
from functions.runtime.key_set import Fetched, Revoked
from functions.runtime.store.port import Store
from functions.users.auth.revocations import LEGACY_REVOCATIONS_IDS, RETENTION, LegacyRevocations, revoked_since
from observability.failpoints import failpoints

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

log = logging.getLogger("shop.users")

KEY_SET_ID = "signing"
ACCESS_TOKEN_LIFE = timedelta(minutes=15)
SIGNING_PERIOD = timedelta(days=30)
SIGNER_CACHE = timedelta(seconds=30)
"""The time for which a process may sign with its cached key before it reads the key set again."""
RETIRED_KEY_LIFE = ACCESS_TOKEN_LIFE + SIGNER_CACHE + timedelta(seconds=90)
"""The time for which a retired key verifies, until its last token has expired everywhere: the token's lifetime, a stale
signer cache, and clock differences."""
MAX_RETIRED_KEYS = 8
PUBLICATION_DELAY = timedelta(minutes=1)
"""The time after which every verifier has read a newly published key. Verifiers read the keys at least every 40
seconds.
"""
_REVOCATIONS_PER_PAGE = 1000  # about 70 KB
_OVERLAP = timedelta(minutes=1)


@dataclass
class SigningKey:
    """An Ed25519 key pair. `kid` is its id in tokens. `public` and `private` are its raw bytes in base64url."""

    kid: str
    public: str
    private: str = field(repr=False)
    signs_since: datetime | None = None
    verifies_until: datetime | None = None


@dataclass
class SigningKeySet:
    """All keys of access tokens, in one entity, so that every process agrees on which one signs."""

    id: str
    current: SigningKey
    upcoming: SigningKey
    retired: list[SigningKey] = field(default_factory=list)
    # The store's epoch. After a restore all keys are replaced, so that earlier access tokens are refused.
    epoch: int = 0
    version: int = 0

    @staticmethod
    def first(current: SigningKey, upcoming: SigningKey, now: datetime, epoch: int = 0) -> SigningKeySet:
        """Return the key set for the first start of a platform, or for the first start after a restore.

        `epoch` is `Store.epoch()`, which a restore changes.
        """
        current.signs_since = now
        return SigningKeySet(KEY_SET_ID, current, upcoming, epoch=epoch)

    def is_rotation_due(self, now: datetime) -> bool:
        """Return whether the current key has signed for 30 days."""
        return self.current.signs_since is None or now - self.current.signs_since >= SIGNING_PERIOD

    def rotate(self, fresh: SigningKey, now: datetime) -> None:
        """Sign with the upcoming key from now on, and publish `fresh` as the next one.

        The private half of the retired key is deleted.

        Raises RESOURCE_EXHAUSTED (TOO_MANY_ROTATIONS) in two cases. The first is within a minute of the last rotation,
        because some verifiers may not have read the upcoming key yet. The second is while eight retired keys still
        verify, because each retired key makes every verifier's key set longer.
        """
        self.prune(now)
        allowed_at = now
        if self.retired and self.current.signs_since is not None:
            allowed_at = self.current.signs_since + PUBLICATION_DELAY
        if len(self.retired) >= MAX_RETIRED_KEYS:
            allowed_at = min(key.verifies_until or now for key in self.retired)
        if allowed_at > now:
            wait = (allowed_at - now).total_seconds()
            raise exhausted("TOO_MANY_ROTATIONS", "The keys were rotated too often.", max(wait, 1.0))
        self.current.private = ""
        self.current.verifies_until = now + RETIRED_KEY_LIFE
        self.retired.append(self.current)
        self.current, self.upcoming = self.upcoming, fresh
        self.current.signs_since = now

    def prune(self, now: datetime) -> bool:
        """Delete retired keys whose tokens have all expired, and return whether there were any."""
        verifying = [key for key in self.retired if _verifies(key, now)]
        found = len(verifying) < len(self.retired)
        self.retired = verifying
        return found

    def published(self, now: datetime) -> Sequence[SigningKey]:
        """Return the keys that verifiers need. They need the upcoming key before it signs."""
        return [self.current, self.upcoming, *(key for key in self.retired if _verifies(key, now))]


class SigningKeysService:
    """Use cases of the signing keys. The keys are in the store; a process caches the current key for 30 seconds."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._signer: tuple[str, Ed25519PrivateKey] | None = None
        self._signer_until = clock.now()

    async def ensure(self) -> SigningKeySet:
        """Return the key set, and create it at the first start of a platform and at the first start after a restore.

        Processes that start together get the same key set.
        """
        found, epoch = await self._store.get(SigningKeySet, KEY_SET_ID), await self._store.epoch()
        if found and found.epoch == epoch:
            return found
        first = SigningKeySet.first(_new_key(), _new_key(), self._clock.now(), epoch)
        return await self._store.update(
            SigningKeySet, KEY_SET_ID, lambda known: (known if known and known.epoch == epoch else first, ())
        )

    async def signer(self) -> tuple[str, Ed25519PrivateKey]:
        """Return the id and the private half of the current key."""
        now = self._clock.now()
        if self._signer is None or now >= self._signer_until:
            current = (await self.ensure()).current
            if self._signer is None or self._signer[0] != current.kid:
                self._signer = current.kid, _private_key(current)
            self._signer_until = now + SIGNER_CACHE
        return self._signer

    async def jwks(self) -> str:
        """Return the public keys as a JWK Set (RFC 7517) in JSON text, with OKP keys (RFC 8037)."""
        return _as_jwks(await self.ensure(), self._clock.now())

    async def key_set(self, since: float | None, cursor: str) -> Fetched:
        """Return the public keys and a page of the revocations since `since`, oldest first.

        None means all revocations that are kept. `as_of` of the answer is one minute ago: all transactions that began
        before that time are complete, even if clocks differ. Raises INVALID_ARGUMENT (INVALID_CURSOR).
        """
        now = self._clock.now()
        begin = now - RETENTION
        if since:
            begin = max(begin, datetime.fromtimestamp(min(since, now.timestamp()), UTC))
        page = await revoked_since(self._store, begin, _REVOCATIONS_PER_PAGE, cursor or None)
        revoked = [Revoked(each.id, each.at.timestamp(), each.before.timestamp()) for each in page.items]
        if not cursor:
            revoked = [*await self._legacy_revocations(now), *revoked]
        as_of = (now - _OVERLAP).timestamp()
        return Fetched(await self.jwks(), revoked, page.next_cursor or "", as_of)

    async def rotate(self, caller: Identity) -> str:
        """Sign with the upcoming key from now on, and return the new JWKS. Admins only.

        Raises RESOURCE_EXHAUSTED (TOO_MANY_ROTATIONS).
        """
        require_admin(caller)
        await self.ensure()
        fresh = _new_key()

        def change(keys: SigningKeySet | None) -> tuple[SigningKeySet, list[Payload]]:
            keys = _existing(keys)
            keys.rotate(fresh, self._clock.now())
            return keys, []

        with failpoints("users.keys"):
            keys = await self._store.update(SigningKeySet, KEY_SET_ID, change)
        log.info("keys_rotated", extra={"by": caller.subject})
        self._forget_signer()
        return _as_jwks(keys, self._clock.now())

    async def on_sweep_due(self, _: SweepDue, inbox: InboxRecord) -> None:
        """Rotate the current key if it has signed for 30 days. Delete retired keys whose tokens have all expired."""
        now = self._clock.now()
        keys = await self.ensure()
        if not keys.is_rotation_due(now) and not keys.prune(now):
            return
        fresh = _new_key()

        def change(keys: SigningKeySet | None) -> tuple[SigningKeySet, list[Payload]]:
            keys = _existing(keys)
            keys.prune(now)
            if keys.is_rotation_due(now):  # another process may have rotated it already
                keys.rotate(fresh, now)
            return keys, []

        await self._store.update(SigningKeySet, KEY_SET_ID, change, idempotency=inbox)
        self._forget_signer()

    async def _legacy_revocations(self, now: datetime) -> list[Revoked]:
        lists = await self._store.get_many(LegacyRevocations, LEGACY_REVOCATIONS_IDS)
        found = [entry for tokens in lists.values() for entry in tokens.effective(now).items()]
        return [Revoked(digest, at, at) for digest, at in found]

    def _forget_signer(self) -> None:
        """Expire the cached key, so that this process reads the key set and signs with the new key at once."""
        self._signer_until = self._clock.now()


def _new_key() -> SigningKey:
    """Return a new Ed25519 key pair. Its id is its RFC 7638 thumbprint."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = _encode(private.public_key().public_bytes_raw())
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}'
    return SigningKey(_encode(sha256(members.encode()).digest()), public, _encode(private.private_bytes_raw()))


def _verifies(key: SigningKey, now: datetime) -> bool:
    return key.verifies_until is None or key.verifies_until > now


def _as_jwks(keys: SigningKeySet, now: datetime) -> str:
    members = [
        {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.kid, "x": key.public}
        for key in keys.published(now)
    ]
    return json.dumps({"keys": members}, separators=(",", ":"))


def _private_key(key: SigningKey) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(urlsafe_b64decode(key.private + "="))


def _existing(keys: SigningKeySet | None) -> SigningKeySet:
    if keys is None:
        raise RuntimeError("the key set is gone from the store")
    return keys


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
