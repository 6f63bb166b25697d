"""Tokens: verifying people's access tokens and the platform's service tokens, and minting the latter (RFC
7519).

Access tokens are signed by the users service with the keys of its JWKS; service tokens with the platform's
Ed25519 key, known by the key id `service`. Nothing in a token chooses how it is verified: the algorithm is
EdDSA, the keys are ours.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unauthenticated
from functions.runtime.identity import SERVICE, Identity
from functions.runtime.ids import uuid7
from functions.runtime.key_set import KeySetCache, subject_digest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SERVICE_KEY_ID = "service"
MAX_TOKEN_BYTES = 4096
_SERVICE_LIFE = timedelta(minutes=5)
_CACHE_SIZE = 10_000
_SKEW_SECONDS = 60.0
# Times are checked by our own clock, in _check.
_OPTIONS: Any = {
    "require": ["exp", "iat", "sub", "aud", "iss", "jti"],
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}


class TokenVerifier(Protocol):
    """Turns a bearer token into who it proves."""

    async def verify(self, token: str) -> Identity:
        """Raises UNAUTHENTICATED (TOKEN_INVALID, TOKEN_EXPIRED), or UNAVAILABLE without keys."""


class JwtVerifier:
    """Verifies by the keys of a `KeySetCache`, and service tokens by the platform's key.

    The signature of a token is checked once; what the key set says of it (its key, its person, its session) at each
    use, so that a revocation counts as soon as it is known. A person's token is UNAVAILABLE (KEYS_UNAVAILABLE) while
    what was revoked in the last 5 minutes cannot be learned.
    """

    def __init__(
        self,
        keys: KeySetCache,
        service_key: Ed25519PublicKey | None,
        issuer: str,
        audience: str,
        clock: Clock,
    ) -> None:
        self._keys = keys
        self._service_key = service_key
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._seen: OrderedDict[str, _Verified] = OrderedDict()

    async def verify(self, token: str) -> Identity:
        """See TokenVerifier."""
        now = self._clock.now().timestamp()
        verified = self._seen.get(token)
        if verified is None:
            verified = await self._verified(token, now)
            self._seen[token] = verified
            while len(self._seen) > _CACHE_SIZE:
                self._seen.popitem(last=False)
        if now >= verified.expires_at:
            raise _expired()
        if verified.kid != SERVICE_KEY_ID:
            keys = await self._keys.current(verified.kid)
            if verified.kid not in keys.keys:
                raise _invalid()
            if keys.void.has(verified.person, verified.session, verified.issued_at):
                raise _expired()
        return verified.identity

    async def _verified(self, token: str, now: float) -> _Verified:
        import jwt  # 50 ms of cold start, needed first here

        try:
            if len(token) > MAX_TOKEN_BYTES:
                raise jwt.InvalidTokenError
            kid = jwt.get_unverified_header(token).get("kid")
            claims: dict[str, Any] = jwt.decode(
                token,
                await self._key(kid),
                algorithms=["EdDSA"],
                audience=self._audience,
                issuer=self._issuer,
                options=_OPTIONS,
            )
        except (jwt.InvalidTokenError, ValueError, TypeError):
            raise _invalid() from None
        _check(claims, kid == SERVICE_KEY_ID, now)
        return _Verified(
            Identity(claims["sub"], frozenset(claims["roles"]), token, claims.get("auth_time", 0)),
            str(kid),
            subject_digest(claims["sub"]),
            subject_digest(str(claims.get("sid"))),
            claims["iat"],
            claims["exp"],
        )

    async def _key(self, kid: object) -> Any:
        if kid == SERVICE_KEY_ID:
            if self._service_key is None:
                raise _invalid()
            return self._service_key
        if not isinstance(kid, str) or not kid or len(kid) > 128:
            raise _invalid()
        key = (await self._keys.current(kid)).keys.get(kid)
        if key is None:
            raise _invalid()
        return key


class _Verified(NamedTuple):
    """A token whose signature and claims were right: who it proves, and what may still make it void."""

    identity: Identity
    kid: str
    person: str
    session: str
    issued_at: float
    expires_at: float


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
    times = [claims["exp"], claims["iat"], claims.get("nbf", 0), claims.get("auth_time", 0)]
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
        import jwt  # see JwtVerifier._verified

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
