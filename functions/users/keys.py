"""The platform's key ring: making keys, signing with the current one, publishing, rotating."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from events.catalog import Payload
from functions.runtime.clock import Clock
from functions.runtime.key_set import Fetched, Revoked
from functions.runtime.store.port import IdempotencyRecord, Store
from functions.users.keyset import KEY_SET_ID, SIGNER_CACHE, KeySet, SigningKey
from functions.users.revocations import KEPT, OUTDATED_IDS, OutdatedTokens, revoked_since
from observability.failpoints import failpoint

_PAGE = 1000  # revocations of one answer: some 70 KB
_OVERLAP = timedelta(minutes=1)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class KeyRing:
    """Keys of access tokens, in the store; the signing key is remembered for half a minute."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._signer: tuple[str, Ed25519PrivateKey] | None = None
        self._signer_until = clock.now()

    async def ready(self) -> KeySet:
        """The key set, made if there is none of this epoch: processes that start at once agree on one."""
        found, epoch = await self._store.get(KeySet, KEY_SET_ID), await self._store.epoch()
        if found and found.epoch == epoch:
            return found
        first = KeySet.first(new_key(), new_key(), self._clock.now(), epoch)
        return await self._store.update(
            KeySet, KEY_SET_ID, lambda known: (known if known and known.epoch == epoch else first, ())
        )

    async def signer(self) -> tuple[str, Ed25519PrivateKey]:
        """The key that signs now, and its id."""
        now = self._clock.now()
        if self._signer is None or now >= self._signer_until:
            current = (await self.ready()).current
            if self._signer is None or self._signer[0] != current.kid:
                self._signer = current.kid, _private(current)
            self._signer_until = now + SIGNER_CACHE
        return self._signer

    async def jwks(self) -> str:
        """The public keys, as JSON text of RFC 7517 (OKP keys of RFC 8037)."""
        return _as_jwks(await self.ready(), self._clock.now())

    async def key_set(self, since: float | None, cursor: str) -> Fetched:
        """The public keys, and a page of the revocations since a time (None: all that matter), oldest first.

        An answer says `as_of` a minute ago: by then every transaction that began has ended, at every process's clock.
        Raises INVALID_ARGUMENT (INVALID_CURSOR).
        """
        now = self._clock.now()
        kept_since = now - KEPT
        begin = (
            max(kept_since, datetime.fromtimestamp(min(since, now.timestamp()), UTC)) if since else kept_since
        )
        page = await revoked_since(self._store, begin, _PAGE, cursor or None)
        revoked = [Revoked(each.id, each.at.timestamp(), each.before.timestamp()) for each in page.items]
        if not cursor:
            revoked = [*await self._of_earlier_releases(now), *revoked]
        as_of = (now - _OVERLAP).timestamp()
        return Fetched(await self.jwks(), revoked, page.next_cursor or "", as_of)

    async def _of_earlier_releases(self, now: datetime) -> list[Revoked]:
        lists = await self._store.get_many(OutdatedTokens, OUTDATED_IDS)
        found = [entry for tokens in lists.values() for entry in tokens.living(now).items()]
        return [Revoked(digest, at, at) for digest, at in found]

    async def rotate(self) -> str:
        """Sign with the next key from now on; gives the new JWKS."""
        await self.ready()
        fresh = new_key()

        def change(keys: KeySet | None) -> tuple[KeySet, list[Payload]]:
            keys = _present(keys)
            keys.rotate(fresh, self._clock.now())
            return keys, []

        failpoint("users.keys.before")
        keys = await self._store.update(KeySet, KEY_SET_ID, change)
        failpoint("users.keys.after")
        return await self._changed(keys)

    async def sweep(self, idempotency: IdempotencyRecord) -> None:
        """Rotate a key that has signed for 30 days, forget those of which no token lives; once per tick."""
        now = self._clock.now()
        keys = await self.ready()
        if not keys.is_due(now) and not keys.prune(now):
            return
        fresh = new_key()

        def change(keys: KeySet | None) -> tuple[KeySet, list[Payload]]:
            keys = _present(keys)
            keys.prune(now)
            if keys.is_due(now):  # not when another process was faster
                keys.rotate(fresh, now)
            return keys, []

        await self._changed(await self._store.update(KeySet, KEY_SET_ID, change, idempotency=idempotency))

    async def _changed(self, keys: KeySet) -> str:
        self._signer_until = (
            self._clock.now()
        )  # look again: this process at least signs with the new key at once
        return _as_jwks(keys, self._clock.now())


def _as_jwks(keys: KeySet, now: datetime) -> str:
    members = [
        {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.kid, "x": key.public}
        for key in keys.published(now)
    ]
    return json.dumps({"keys": members}, separators=(",", ":"))


def new_key() -> SigningKey:
    """A fresh Ed25519 key pair; its id is its RFC 7638 thumbprint."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = _encode(private.public_key().public_bytes_raw())
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}'
    return SigningKey(
        _encode(sha256(members.encode()).digest()), public, _encode(private.private_bytes_raw())
    )


def _private(key: SigningKey) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(urlsafe_b64decode(key.private + "="))


def _present(keys: KeySet | None) -> KeySet:
    if keys is None:
        raise RuntimeError("the key set is gone from the store")
    return keys


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
