"""The text formats of tokens: signed access tokens, and opaque refresh and mailed tokens."""

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
    """The tokens of a login or a refresh.

    The access token expires in `expires_in` seconds. Only a login returns a `device_token`.
    """

    user_id: str
    access_token: str
    refresh_token: str
    device_token: str = ""
    expires_in: int = int(ACCESS_TOKEN_LIFE.total_seconds())


class RefreshToken(NamedTuple):
    """The stored form of a refresh token: its session, and the SHA-256 of its text."""

    session_id: str
    digest: str


class MailedToken(NamedTuple):
    """The stored form of a mailed token: its owner, and the SHA-256 of its text.

    `owner` is the 32 hexadecimal digits of the id of an account, or of the id of a change of its address.
    """

    owner: str
    digest: str

    @property
    def user_id(self) -> str:
        """The id of the owner, if it is an account."""
        return f"usr_{self.owner}"

    @property
    def change_id(self) -> str:
        """The id of the owner, if it is a change of an address."""
        return f"emc_{self.owner}"


class AccessTokens:
    """Signs access tokens with EdDSA. They are valid for 15 minutes."""

    def __init__(self, keys: SigningKeysService, issuer: str, audience: str, clock: Clock) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    async def sign(self, user: User, session: Session) -> str:
        """Return a JWT with the identity and the roles of `user` in this session.

        Its `auth_time` (OpenID Connect Core 1.0, section 2) is the time of the login, even after the session was
        refreshed. `device` is the id of the device, if it was known before the login: orders counts by it.
        """
        import jwt

        kid, key = await self._keys.signer()
        # With fractions of a second, so that a token of a login right after a revocation is later than the revocation.
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
        if session.device:
            claims["device"] = session.device
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": kid})


def new_refresh_token(session_id: str, epoch: int) -> tuple[str, RefreshToken]:
    """Make a token of 256 random bits for this session. Return the text for its owner, and the stored form.

    Here and in the functions below, `epoch` is `Store.epoch()`, which a restore changes. The digest in the stored form
    depends on it, so a token from before a restore is not accepted.
    """
    text = _new(_REFRESH, session_id)
    return text, RefreshToken(session_id, _digest(text, epoch))


def parse_refresh_token(text: str, epoch: int) -> RefreshToken | None:
    """Return the refresh token that `text` claims to be, or None if it does not have the form of one."""
    owner = _owner(_REFRESH, text)
    return RefreshToken(f"ses_{owner}", _digest(text, epoch)) if owner else None


def new_mailed_token(owner_id: str, epoch: int) -> tuple[str, MailedToken]:
    """Make a token of 256 random bits for this account or change. Return the text to mail, and the stored form."""
    text = _new(_MAILED, owner_id)
    return text, MailedToken(owner_id[-32:], _digest(text, epoch))


def parse_mailed_token(text: str, epoch: int) -> MailedToken:
    """Return the mailed token that `text` claims to be. Raises INVALID_ARGUMENT (MAILED_TOKEN_INVALID)."""
    owner = _owner(_MAILED, text)
    if owner is None:
        raise invalid_mailed_token()
    return MailedToken(owner, _digest(text, epoch))


def _new(prefix: str, owner_id: str) -> str:
    raw = UUID(owner_id[-32:]).bytes + secrets.token_bytes(_SECRET_BYTES)
    return prefix + urlsafe_b64encode(raw).decode("ascii")


def _owner(prefix: str, text: str) -> str | None:
    """Return the 32 hexadecimal digits of the owner that the text names, or None if the text is malformed."""
    if len(text) != _TOKEN_CHARS or not text.startswith(prefix) or not text.isascii():
        return None
    try:
        raw = b64decode(text.removeprefix(prefix), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return raw[:16].hex()


def _digest(text: str, epoch: int) -> str:
    return sha256((f"{epoch}:{text}" if epoch else text).encode("ascii")).hexdigest()
