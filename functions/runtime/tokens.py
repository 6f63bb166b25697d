"""Verification of access tokens and service tokens, and issue of service tokens (RFC 7519).

The users service signs access tokens with the keys of its JWKS. A service signs its own service tokens with its key in
`events.service_keys`; each token is for the one service that is called (`aud`). A token cannot choose how it is
verified: the algorithm is always EdDSA, and only the platform's keys are used.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unauthenticated
from functions.runtime.identity import SERVICE, Identity
from functions.runtime.ids import uuid7
from functions.runtime.key_set import KeySetCache, subject_digest

if TYPE_CHECKING:
    from events.service_keys import PrivateKey, PublicKey, ServiceKeys

MAX_TOKEN_BYTES = 4096
_SERVICE_LIFE = timedelta(minutes=5)
_CACHE_SIZE = 10_000
_SKEW_SECONDS = 60.0
# Times are not checked by the library but in _check, with the clock of this module.
_OPTIONS: Any = {
    "require": ["exp", "iat", "sub", "aud", "iss", "jti"],
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}


class TokenVerifier(Protocol):
    """Verifies bearer tokens."""

    async def verify(self, token: str) -> Identity:
        """Return the caller that a token identifies.

        Raises UNAUTHENTICATED (TOKEN_INVALID, TOKEN_EXPIRED), or UNAVAILABLE if the keys are not available.
        """


class JwtVerifier:
    """Verifies access tokens with the keys of a `KeySetCache`, and service tokens for `name` with those of `services`.

    The signature of a token is checked once. Its key, person and session are checked at each use, so that a revocation
    takes effect as soon as it has been fetched. `verify` raises UNAVAILABLE (KEYS_UNAVAILABLE) for an access token if
    the last successful fetch of revocations is over 5 minutes old.
    """

    def __init__(
        self, keys: KeySetCache, services: ServiceKeys | None, issuer: str, audience: str, clock: Clock, name: str = ""
    ) -> None:
        self._keys = keys
        self._services = services
        self._name = name
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._seen: OrderedDict[str, _Verified] = OrderedDict()

    async def verify(self, token: str) -> Identity:
        now = self._clock.now().timestamp()
        verified = self._seen.get(token)
        if verified is None:
            verified = await self._verified(token, now)
            self._seen[token] = verified
            while len(self._seen) > _CACHE_SIZE:
                self._seen.popitem(last=False)
        if now >= verified.expires_at:
            raise _expired()
        if not verified.identity.is_service:
            keys = await self._keys.current(verified.kid)
            if verified.kid not in keys.keys:
                raise _invalid()
            if keys.revoked.has(verified.person, verified.session, verified.issued_at):
                raise _expired()
        return verified.identity

    async def _verified(self, token: str, now: float) -> _Verified:
        import jwt  # imported at first use, because it adds 50 ms to a cold start

        try:
            if len(token) > MAX_TOKEN_BYTES:
                raise jwt.InvalidTokenError
            kid = jwt.get_unverified_header(token).get("kid")
            service = self._services.get(kid) if self._services else None
            claims: dict[str, Any] = jwt.decode(
                token,
                _loaded(service) if service else await self._key(kid),
                algorithms=["EdDSA"],
                audience=self._name if service else self._audience,
                issuer=self._issuer,
                options=_OPTIONS,
            )
        except (jwt.InvalidTokenError, ValueError, TypeError):
            raise _invalid() from None
        _check(claims, service.service if service else None, now)
        return _Verified(
            Identity(
                claims["sub"], frozenset(claims["roles"]), token, claims.get("auth_time", 0), claims.get("device", "")
            ),
            str(kid),
            subject_digest(claims["sub"]),
            subject_digest(str(claims.get("sid"))),
            claims["iat"],
            claims["exp"],
        )

    async def _key(self, kid: object) -> Any:
        if not isinstance(kid, str) or not kid or len(kid) > 128:
            raise _invalid()
        key = (await self._keys.current(kid)).keys.get(kid)
        if key is None:
            raise _invalid()
        return key


class _Verified(NamedTuple):
    """A token with a valid signature and valid claims. `person` and `session` are digests to look up revocations."""

    identity: Identity
    kid: str
    person: str
    session: str
    issued_at: float
    expires_at: float


def _loaded(key: PublicKey) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # imported by jwt anyway

    return Ed25519PublicKey.from_public_bytes(key.raw)


def _check(claims: dict[str, Any], service: str | None, now: float) -> None:
    """Check the claims of a correctly signed token: type, roles and times. Raises UNAUTHENTICATED.

    `service` is the owner of the key that signed a service token, and must be its subject. It is None for an access
    token.
    """
    roles = claims.get("roles")
    wanted = "service" if service else "access"
    if claims.get("typ") != wanted or not isinstance(roles, list) or not all(isinstance(r, str) for r in roles):
        raise _invalid()
    if (SERVICE in roles) != bool(service) or not isinstance(claims["sub"], str) or not claims["sub"]:
        raise _invalid()
    if (service and claims["sub"] != service) or not isinstance(claims.get("device", ""), str):
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
    """Issues this service's own tokens, one for each service that it calls.

    A token is reused until a minute before it expires.
    """

    def __init__(self, key: PrivateKey, issuer: str, clock: Clock) -> None:
        self._key = key
        self._issuer = issuer
        self._clock = clock
        self._minted: dict[str, tuple[datetime, str]] = {}

    def token(self, audience: str) -> str:
        """Return a token for calls to the service `audience`.

        Its subject is this service and its role is `service`. A new token is valid for 5 minutes.
        """
        now = self._clock.now()
        renew_at, token = self._minted.get(audience, (now, ""))
        if now >= renew_at:
            token = self._mint(audience, now.timestamp())
            self._minted[audience] = (now + _SERVICE_LIFE - timedelta(minutes=1), token)
        return token

    def _mint(self, audience: str, now: float) -> str:
        import jwt  # see JwtVerifier._verified
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        claims = {
            "iss": self._issuer,
            "aud": audience,
            "sub": self._key.service,
            "jti": uuid7(),
            "iat": int(now),
            "exp": int(now + _SERVICE_LIFE.total_seconds()),
            "roles": [SERVICE],
            "typ": "service",
        }
        key = Ed25519PrivateKey.from_private_bytes(self._key.seed)
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": self._key.key_id})
