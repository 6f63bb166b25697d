"""The tokens of a session: a signed one that services verify, an opaque one that is traded for the next."""

from __future__ import annotations

import binascii
import secrets
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from functions.runtime.clock import Clock
from functions.runtime.ids import new_id, uuid7
from functions.users.domain import User
from functions.users.keys import KeyRing
from functions.users.keyset import ACCESS_LIFE

_PREFIX = "rt_"  # lets scanners for leaked secrets know it
_SECRET_BYTES = 32
_TOKEN_CHARS = len(_PREFIX) + 64  # 16 bytes of the session's id and the secret, in base64url


@dataclass(frozen=True, repr=False)
class Tokens:
    """What a login or a refresh gives; `expires_in` seconds of the access token."""

    user_id: str
    access_token: str
    refresh_token: str
    expires_in: int = int(ACCESS_LIFE.total_seconds())


class RefreshToken(NamedTuple):
    """A refresh token as the store knows it: of which session, and the SHA-256 of its text."""

    session_id: str
    digest: str


class AccessTokens:
    """Mints access tokens: EdDSA, 15 minutes."""

    def __init__(self, keys: KeyRing, issuer: str, audience: str, clock: Clock) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    async def mint(self, user: User) -> str:
        """A JWT that says who `user` is and what they may do."""
        import jwt

        kid, key = await self._keys.signer()
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user.id,
            "jti": uuid7(),
            "iat": now,
            "exp": now + int(ACCESS_LIFE.total_seconds()),
            "roles": user.roles,
            "typ": "access",
        }
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": kid})


def new_session_id() -> str:
    """`ses_...`."""
    return new_id("ses")


def new_refresh_token(session_id: str) -> tuple[str, RefreshToken]:
    """256 random bits that belong to this session: the text for its owner, and what the store may know."""
    raw = UUID(session_id.removeprefix("ses_")).bytes + secrets.token_bytes(_SECRET_BYTES)
    text = _PREFIX + urlsafe_b64encode(raw).decode("ascii")
    return text, RefreshToken(session_id, _digest(text))


def parse_refresh_token(text: str) -> RefreshToken | None:
    """What `text` claims to be; None when it cannot be one of ours."""
    if len(text) != _TOKEN_CHARS or not text.startswith(_PREFIX) or not text.isascii():
        return None
    try:
        raw = b64decode(text.removeprefix(_PREFIX), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return RefreshToken("ses_" + raw[:16].hex(), _digest(text))


def _digest(text: str) -> str:
    return sha256(text.encode("ascii")).hexdigest()
