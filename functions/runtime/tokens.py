"""Tokens: verifying people's access tokens and the platform's service tokens, and minting the latter (RFC
7519).

Access tokens are signed by the users service with the keys of its JWKS; service tokens with the platform's
Ed25519 key, known by the key id `service`. Nothing in a token chooses how it is verified: the algorithm is
EdDSA, the keys are ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unauthenticated, unavailable
from functions.runtime.identity import SERVICE, Identity
from functions.runtime.ids import uuid7

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

log = logging.getLogger("shop.tokens")

SERVICE_KEY_ID = "service"
MAX_TOKEN_BYTES = 4096
_SERVICE_LIFE = timedelta(minutes=5)
_CACHE_SIZE = 10_000
# Together under a minute: so long a token may be believed that the users service has declared outdated.
_CACHE_SECONDS = 30.0
_KEYS_SECONDS = 25.0
_PATIENCE_SECONDS = 1.0
_REFETCH_SECONDS = 5.0
_SKEW_SECONDS = 60.0
# Times are checked by our own clock, in _check.
_OPTIONS: Any = {
    "require": ["exp", "iat", "sub", "aud", "iss", "jti"],
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}

Jwks = Callable[[], Awaitable[str]]


class TokenVerifier(Protocol):
    """Turns a bearer token into who it proves."""

    async def verify(self, token: str) -> Identity:
        """Raises UNAUTHENTICATED (TOKEN_INVALID, TOKEN_EXPIRED), or UNAVAILABLE without keys."""


class JwtVerifier:
    """Verifies by a JWKS that is fetched when first needed, kept for 25 seconds, and fetched again for an
    unknown key id.

    A token once verified is remembered for half a minute, within its own life, so that a busy caller costs two
    signature checks a minute. `jwks` gives RFC 7517 JSON text and may raise ServiceError; its member `outdated`
    says for whom (`subject_digest`) tokens issued before a time (seconds since 1970) are void, `ended` of which
    sessions (their claim `sid`) all are. While the users service is away, what is known goes on.
    """

    def __init__(
        self, jwks: Jwks, service_key: Ed25519PublicKey | None, issuer: str, audience: str, clock: Clock
    ) -> None:
        self._jwks = jwks
        self._service_key = service_key
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._keys: Mapping[str, Any] = {}
        self._void = Void()
        self._fetched = 0.0
        self._fetching: asyncio.Task[None] | None = None
        self._seen: OrderedDict[str, tuple[float, Identity]] = OrderedDict()

    async def verify(self, token: str) -> Identity:
        """See TokenVerifier."""
        now = self._clock.now().timestamp()
        seen = self._seen.get(token)
        if seen is not None and now < seen[0]:
            return seen[1]
        claims = await self._claims(token, now)
        identity = Identity(claims["sub"], frozenset(claims["roles"]), token)
        self._seen[token] = (min(now + _CACHE_SECONDS, claims["exp"]), identity)
        while len(self._seen) > _CACHE_SIZE:
            self._seen.popitem(last=False)
        return identity

    async def _claims(self, token: str, now: float) -> dict[str, Any]:
        import jwt  # 50 ms of cold start, needed first here

        try:
            if len(token) > MAX_TOKEN_BYTES:
                raise jwt.InvalidTokenError
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self._key(kid, now)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=self._audience,
                issuer=self._issuer,
                options=_OPTIONS,
            )
        except (jwt.InvalidTokenError, ValueError, TypeError):
            raise _invalid() from None
        _check(claims, kid == SERVICE_KEY_ID, now)
        if self._void.has(claims):
            raise _expired()
        return claims

    async def _key(self, kid: object, now: float) -> Any:
        if kid == SERVICE_KEY_ID:
            if self._service_key is None:
                raise _invalid()
            return self._service_key
        if not isinstance(kid, str) or not kid or len(kid) > 128:
            raise _invalid()
        age = now - self._fetched
        if age >= _KEYS_SECONDS or (kid not in self._keys and age >= _REFETCH_SECONDS):
            await self._refresh(_PATIENCE_SECONDS if kid in self._keys else None)
        key = self._keys.get(kid)
        if key is None:
            raise _invalid()
        return key

    async def _refresh(self, patience: float | None) -> None:
        """Fetch the keys; whoever comes meanwhile waits for the same answer, be it a failure, or for so long."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._fetched_once)
        if patience is None:
            await asyncio.shield(self._fetching)
        else:
            await asyncio.wait([self._fetching], timeout=patience)

    async def _fetch(self) -> None:
        try:
            text = await self._jwks()
            self._keys, self._void = parse_jwks(text), msgspec.json.decode(text, type=Void)
        except ServiceError:
            if not self._keys:
                raise
            log.warning("jwks_refresh_failed")
        self._fetched = self._clock.now().timestamp()

    def _fetched_once(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled():
            task.exception()  # seen, even where everybody who waited has gone


def parse_jwks(text: str) -> dict[str, Any]:
    """Ed25519 public keys by key id, of RFC 7517 JSON text; other keys are left out.

    Raises UNAVAILABLE (KEYS_UNAVAILABLE) for a text with none.
    """
    import jwt  # see JwtVerifier

    try:
        keys = jwt.PyJWKSet.from_json(text).keys
    except (jwt.PyJWTError, ValueError):
        raise unavailable("KEYS_UNAVAILABLE", "The keys of access tokens cannot be had just now.") from None
    return {key.key_id: key.key for key in keys if key.key_id and key.key_type == "OKP"}


def subject_digest(subject: str) -> str:
    """Stands for a person or a session where the keys are published, so that no id is."""
    return sha256(subject.encode()).hexdigest()[:32]


class Void(msgspec.Struct, frozen=True):
    """What a JWKS says of tokens that must not be believed any more; nothing where it has no such members."""

    outdated: dict[str, float] = {}
    ended: frozenset[str] = frozenset()

    def has(self, claims: Mapping[str, Any]) -> bool:
        """Whether a token with these claims is among them."""
        if claims["iat"] < self.outdated.get(subject_digest(claims["sub"]), 0):
            return True
        return bool(self.ended) and subject_digest(str(claims.get("sid"))) in self.ended


def _check(claims: dict[str, Any], by_service_key: bool, now: float) -> None:
    """Rules beyond the signature: the type of token fits its key, roles fit its type, and its time has not
    passed.
    """
    roles = claims.get("roles")
    wanted = "service" if by_service_key else "access"
    if (
        claims.get("typ") != wanted
        or not isinstance(roles, list)
        or not all(isinstance(r, str) for r in roles)
    ):
        raise _invalid()
    if (SERVICE in roles) != by_service_key or not isinstance(claims["sub"], str) or not claims["sub"]:
        raise _invalid()
    times = [claims["exp"], claims["iat"], claims.get("nbf", 0)]
    if not all(isinstance(moment, int | float) for moment in times):
        raise _invalid()
    if max(times[1:]) > now + _SKEW_SECONDS:
        raise _invalid()
    if now >= claims["exp"]:
        raise _expired()


def _expired() -> ServiceError:
    return unauthenticated("TOKEN_EXPIRED", "The access token has expired.")


def _invalid() -> ServiceError:
    return unauthenticated("TOKEN_INVALID", "The access token is not valid.")


class ServiceTokens:
    """Mints this service's own token and keeps it until a minute before its end."""

    def __init__(self, name: str, key: Ed25519PrivateKey, issuer: str, audience: str, clock: Clock) -> None:
        self._name = name
        self._key = key
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._token = ""
        self._renew_at = 0.0

    def token(self) -> str:
        """A JWT of five minutes: `sub` this service's name, role `service`."""
        now = self._clock.now()
        if now.timestamp() >= self._renew_at:
            self._token = self._mint(now.timestamp())
            self._renew_at = (now + _SERVICE_LIFE - timedelta(minutes=1)).timestamp()
        return self._token

    def _mint(self, now: float) -> str:
        import jwt  # see JwtVerifier

        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": self._name,
            "jti": uuid7(),
            "iat": int(now),
            "exp": int(now + _SERVICE_LIFE.total_seconds()),
            "roles": [SERVICE],
            "typ": "service",
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": SERVICE_KEY_ID})
