"""The key pairs of the services: each service has its own private key and the public keys of all services.

Public keys are a JWKS (RFC 7517) of Ed25519 keys (RFC 8037). A key id is the name of its service, a dot, and the
first characters of the key's thumbprint (RFC 7638): `orders.9C0b2s1yqXk7tD3f`. A service may have several public keys
at once, so that a new key can be distributed to all services before anything is signed with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from nacl.signing import SigningKey

_KEY_ID: Final = re.compile(r"([a-z][a-z0-9-]{0,62})\.[A-Za-z0-9_-]{16}")
# The prefix of every Ed25519 key in PKCS #8 without attributes (RFC 8410, section 7); the seed follows it.
_PKCS8: Final = bytes.fromhex("302e020100300506032b657004220420")
_PEM: Final = re.compile(r"-----BEGIN PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+?)\s+-----END PRIVATE KEY-----")
_RAW: Final = 32


class InvalidKey(ValueError):
    """The text is not a valid key or key set. The message never contains the text of a private key."""


class PrivateKey:
    """The private key of a service; `seed` is the 32-byte private key of RFC 8032."""

    def __init__(self, service: str, seed: bytes) -> None:
        self.service = service
        self._seed = seed

    @classmethod
    def from_pem(cls, service: str, pem: str) -> PrivateKey:
        """Parse a key in PEM (PKCS #8). Raises InvalidKey."""
        found = _PEM.fullmatch(pem.strip())
        try:
            der = base64.b64decode("".join(found[1].split()), validate=True) if found else b""
        except binascii.Error:
            der = b""
        if not der.startswith(_PKCS8) or len(der) != len(_PKCS8) + _RAW:
            raise InvalidKey("no Ed25519 private key in PEM (PKCS #8)")
        return cls(service, der[len(_PKCS8) :])

    @classmethod
    def generate(cls, service: str) -> PrivateKey:
        """Return a new random key."""
        return cls(service, secrets.token_bytes(_RAW))

    @property
    def pem(self) -> str:
        """Return the key in PEM (PKCS #8), the format that `from_pem` parses."""
        body = base64.b64encode(_PKCS8 + self._seed).decode()
        return f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"

    @property
    def seed(self) -> bytes:
        """Return the private key, 32 bytes."""
        return self._seed

    @cached_property
    def key_id(self) -> str:
        """Return the id of the public key."""
        return key_id(self.service, bytes(self._signing.verify_key))

    @property
    def public(self) -> bytes:
        """Return the public key, 32 bytes."""
        return bytes(self._signing.verify_key)

    def sign(self, message: bytes) -> bytes:
        """Return an Ed25519 signature, 64 bytes."""
        return self._signing.sign(message).signature

    @cached_property
    def _signing(self) -> SigningKey:
        from nacl.signing import SigningKey  # imported at the first signature: it takes 20 ms of a cold start

        return SigningKey(self._seed)

    def __repr__(self) -> str:
        return f"PrivateKey({self.service!r})"


class PublicKey:
    """A public key of a service; `raw` is its 32 bytes."""

    __slots__ = ("_verifying", "raw", "service")

    def __init__(self, service: str, raw: bytes) -> None:
        self.service = service
        self.raw = raw
        self._verifying: Any = None

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Return whether the signature of the message was made with this key's private key."""
        from nacl.exceptions import BadSignatureError  # see PrivateKey

        if self._verifying is None:
            from nacl.signing import VerifyKey  # see PrivateKey

            self._verifying = VerifyKey(self.raw)
        try:
            self._verifying.verify(message, signature)
        except (BadSignatureError, ValueError):  # ValueError: the signature has the wrong length
            return False
        return True


class ServiceKeys:
    """The public keys of all services, by key id."""

    def __init__(self, keys: Mapping[str, PublicKey]) -> None:
        self._keys = dict(keys)

    @classmethod
    def parse(cls, jwks: str) -> ServiceKeys:
        """Parse a JWKS; keys of other types are ignored. Raises InvalidKey if it is no JWKS or has no Ed25519 key."""
        try:
            entries = msgspec.json.decode(jwks, type=_Jwks).keys
            keys = {entry.kid: _public(entry) for entry in entries if entry.kty == "OKP"}
        except (msgspec.DecodeError, binascii.Error) as error:
            raise InvalidKey(f"no JWKS of Ed25519 keys: {error}") from None
        if not keys:
            raise InvalidKey("a JWKS without an Ed25519 key")
        return cls(keys)

    def get(self, kid: object) -> PublicKey | None:
        """Return the key with this id, or None."""
        return self._keys.get(kid) if isinstance(kid, str) else None

    def items(self) -> Iterable[tuple[str, PublicKey]]:
        """Return all ids and keys."""
        return self._keys.items()

    def of(self, service: str) -> list[PublicKey]:
        """Return all keys of a service."""
        return [key for key in self._keys.values() if key.service == service]

    def with_key(self, service: str, public: bytes) -> ServiceKeys:
        """Return a copy with one more key."""
        return ServiceKeys({**self._keys, key_id(service, public): PublicKey(service, public)})

    def without(self, service: str) -> ServiceKeys:
        """Return a copy without the keys of a service."""
        return ServiceKeys({kid: key for kid, key in self._keys.items() if key.service != service})

    def jwks(self) -> str:
        """Return the set as a JWKS, the inverse of `parse`."""
        entries = (_Jwk("OKP", "Ed25519", kid, _encoded(key.raw)) for kid, key in sorted(self._keys.items()))
        return msgspec.json.encode(_Jwks(list(entries))).decode()


class _Jwk(msgspec.Struct):
    kty: str
    crv: str = ""
    kid: str = ""
    x: str = ""


class _Jwks(msgspec.Struct):
    keys: list[_Jwk]


def key_id(service: str, public: bytes) -> str:
    """Return the id of a public key: its service and the first 16 characters of its thumbprint (RFC 7638)."""
    thumbprint = hashlib.sha256(b'{"crv":"Ed25519","kty":"OKP","x":"%b"}' % _encoded(public).encode()).digest()
    return f"{service}.{_encoded(thumbprint)[:16]}"


def _public(entry: _Jwk) -> PublicKey:
    found, raw = _KEY_ID.fullmatch(entry.kid), base64.urlsafe_b64decode(entry.x + "=")
    if entry.crv != "Ed25519" or found is None or len(raw) != _RAW or key_id(found[1], raw) != entry.kid:
        raise InvalidKey(f"the key {entry.kid[:80]!r} is not the Ed25519 key that its id names")
    return PublicKey(found[1], raw)


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
