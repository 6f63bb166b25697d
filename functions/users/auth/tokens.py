"""The texts of tokens: signed access tokens, and opaque refresh and mailed tokens."""

from __future__ import annotations

import binascii
import secrets
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from functions.runtime.clock import Clock
from functions.runtime.ids import uuid7
from functions.users.auth.challenges import invalid_mailed_token
from functions.users.auth.signing_keys import ACCESS_TOKEN_LIFE, SigningKeysService
from functions.users.domain import Session, User

_REFRESH, _MAILED = "rt_", "mt_"  # prefixes by which scanners for leaked secrets recognise them
_SECRET_BYTES = 32
_TOKEN_CHARS = 3 + 64  # the prefix; 16 bytes of an id and the secret, in base64url


@dataclass(frozen=True, repr=False)
class SessionTokens:
    """The tokens of a login or a refresh. The access token expires in `expires_in` seconds; only a login gives a
    `device_token`."""

    user_id: str
    access_token: str
    refresh_token: str
    device_token: str = ""
    expires_in: int = int(ACCESS_TOKEN_LIFE.total_seconds())


class RefreshToken(NamedTuple):
    """A refresh token as the store knows it: its session, and the SHA-256 of its text."""

    session_id: str
    digest: str


class MailedToken(NamedTuple):
    """A mailed token as the store knows it: its owner, and the SHA-256 of its text.

    `owner` is the 32 hexadecimal digits of the id of an account, or of a change of its address.
    """

    owner: str
    digest: str

    @property
    def user_id(self) -> str:
        """The id of the account, if the owner is one."""
        return f"usr_{self.owner}"

    @property
    def change_id(self) -> str:
        """The id of the change of an address, if the owner is one."""
        return f"emc_{self.owner}"


class AccessTokens:
    """Signs access tokens: EdDSA, 15 minutes."""

    def __init__(self, keys: SigningKeysService, issuer: str, audience: str, clock: Clock) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    async def sign(self, user: User, session: Session) -> str:
        """Return a JWT with the identity and the roles of `user` in this session.

        Its `auth_time` (OpenID Connect Core 1.0, section 2) is the time of the login, however often the session was
        refreshed.
        """
        import jwt

        kid, key = await self._keys.signer()
        # With fractions of a second: a login right after a change gives a token from after it.
        now = self._clock.now().timestamp()
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user.id,
            "sid": session.id,
            "jti": uuid7(),
            "iat": now,
            "auth_time": session.created_at.timestamp(),
            "exp": int(now + ACCESS_TOKEN_LIFE.total_seconds()),
            "roles": user.roles,
            "typ": "access",
        }
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": kid})


def new_refresh_token(session_id: str, epoch: int) -> tuple[str, RefreshToken]:
    """Make a token of 256 random bits for this session: the text for its owner, and what the store may know.

    Here and below, `epoch` is the store's: a token of another one matches nothing.
    """
    text = _new(_REFRESH, session_id)
    return text, RefreshToken(session_id, _digest(text, epoch))


def parse_refresh_token(text: str, epoch: int) -> RefreshToken | None:
    """Return what `text` claims to be; None if it has not the form of a refresh token."""
    owner = _owner(_REFRESH, text)
    return RefreshToken(f"ses_{owner}", _digest(text, epoch)) if owner else None


def new_mailed_token(owner_id: str, epoch: int) -> tuple[str, MailedToken]:
    """Make a token of 256 random bits for this account or change: the text to mail, and what the store may know."""
    text = _new(_MAILED, owner_id)
    return text, MailedToken(owner_id[-32:], _digest(text, epoch))


def parse_mailed_token(text: str, epoch: int) -> MailedToken:
    """Return what `text` claims to be; raise INVALID_ARGUMENT (MAILED_TOKEN_INVALID) for any other text."""
    owner = _owner(_MAILED, text)
    if owner is None:
        raise invalid_mailed_token()
    return MailedToken(owner, _digest(text, epoch))


def _new(prefix: str, owner_id: str) -> str:
    raw = UUID(owner_id[-32:]).bytes + secrets.token_bytes(_SECRET_BYTES)
    return prefix + urlsafe_b64encode(raw).decode("ascii")


def _owner(prefix: str, text: str) -> str | None:
    """Return the 32 hexadecimal digits of the owner that the text claims to have."""
    if len(text) != _TOKEN_CHARS or not text.startswith(prefix) or not text.isascii():
        return None
    try:
        raw = b64decode(text.removeprefix(prefix), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return raw[:16].hex()


def _digest(text: str, epoch: int) -> str:
    return sha256((f"{epoch}:{text}" if epoch else text).encode("ascii")).hexdigest()
