"""Check service tokens in the broker and the dead-letter sink. `functions.runtime.tokens` issues them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from events.service_keys import PublicKey, ServiceKeys

DEAD_LETTERS: Final = "dead-letters"
"""The audience of tokens for the dead-letter sink."""
_LONGEST: Final = 4096
_SKEW: Final = 60.0


class NotAuthenticated(Exception):
    """There is no token, or it is not valid; the message is for people."""


class NotAllowed(Exception):
    """The calling service may not do this."""


class Callers:
    """Authenticates calls to `audience` and accepts those of the services in `allowed`.

    `load` returns the public keys, `clock` Unix time. The rules are those of `functions.runtime.tokens`: the token is
    signed by the service that it names, is for this audience, and has not expired.
    """

    def __init__(
        self,
        load: Callable[[], ServiceKeys],
        issuer: str,
        audience: str,
        allowed: Collection[str],
        clock: Callable[[], float],
    ) -> None:
        self._load = load
        self._issuer = issuer
        self._audience = audience
        self._allowed = frozenset(allowed)
        self._clock = clock

    def check(self, authorization: str) -> str:
        """Return the name of the calling service. Raises NotAuthenticated and NotAllowed."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST:
            raise NotAuthenticated("A service token is needed.")
        claims = self._claims(token)
        now, times = self._clock(), (claims["iat"], claims["exp"])
        if not all(isinstance(moment, int | float) for moment in times):
            raise NotAuthenticated("The service token is not valid.")
        if times[0] > now + _SKEW or now >= times[1]:
            raise NotAuthenticated("The service token has expired.")
        if claims["sub"] not in self._allowed:
            raise NotAllowed(f"{claims['sub']} may not do this.")
        return str(claims["sub"])

    @cached_property
    def _keys(self) -> ServiceKeys:
        return self._load()

    def _claims(self, token: str) -> dict[str, Any]:
        import jwt  # imported at the first check: it takes 50 ms of a start

        try:
            key = self._keys.get(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise jwt.InvalidTokenError
            claims: dict[str, Any] = jwt.decode(
                token,
                _loaded(key),
                algorithms=["EdDSA"],
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["exp", "iat", "sub", "aud", "iss"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, ValueError, TypeError):
            raise NotAuthenticated("The service token is not valid.") from None
        if claims["sub"] != key.service or claims.get("typ") != "service":
            raise NotAuthenticated("The service token is not valid.")
        return claims


def dead_letter_callers(environ: Mapping[str, str], clock: Callable[[], float]) -> Callers | None:
    """Return the check for reading, replaying and discarding dead letters.

    Reads SERVICE_KEYS or SERVICE_KEYS_FILE, and TOKEN_ISSUER. Without keys it returns None, and the sink then refuses
    every caller. Raises InvalidKey and OSError.
    """
    jwks = environ.get("SERVICE_KEYS", "")
    if not jwks and environ.get("SERVICE_KEYS_FILE"):
        jwks = Path(environ["SERVICE_KEYS_FILE"]).read_text()
    if not jwks:
        return None
    keys = ServiceKeys.parse(jwks)
    issuer = environ.get("TOKEN_ISSUER") or "https://shop.local"
    return Callers(lambda: keys, issuer, DEAD_LETTERS, ("gateway", "console"), clock)


def _loaded(key: PublicKey) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # jwt needs this type

    return Ed25519PublicKey.from_public_bytes(key.raw)
