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
from functions.users.domain import Session, User
from functions.users.keys import KeyRing
from functions.users.keyset import ACCESS_LIFE

_REFRESH, _MAILED = "rt_", "mt_"  # let scanners for leaked secrets know them
_SECRET_BYTES = 32
_TOKEN_CHARS = 3 + 64  # the prefix; 16 bytes of an id and the secret, in base64url


@dataclass(frozen=True, repr=False)
class Tokens:
    """What a login or a refresh gives; `expires_in` seconds of the access token, `device_token` only by a login."""

    user_id: str
    access_token: str
    refresh_token: str
    device_token: str = ""
    expires_in: int = int(ACCESS_LIFE.total_seconds())


class RefreshToken(NamedTuple):
    """A refresh token as the store knows it: of which session, and the SHA-256 of its text."""

    session_id: str
    digest: str


class MailedToken(NamedTuple):
    """A token that went out by mail, as the store knows it: whose, and the SHA-256 of its text.

    `owner` are the 32 hexadecimal digits of the id of an account, or of a change of its address.
    """

    owner: str
    digest: str

    @property
    def user_id(self) -> str:
        """The account, if it is one's."""
        return f"usr_{self.owner}"

    @property
    def change_id(self) -> str:
        """The change of an address, if it is one's."""
        return f"emc_{self.owner}"


class AccessTokens:
    """Mints access tokens: EdDSA, 15 minutes."""

    def __init__(self, keys: KeyRing, issuer: str, audience: str, clock: Clock) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    async def mint(self, user: User, session: Session) -> str:
        """Sign a JWT that says who `user` is and what they may do, until the session ends.

        Its `auth_time` (OpenID Connect Core 1.0, section 2) is the time of the login, however often it was refreshed.
        """
        import jwt

        kid, key = await self._keys.signer()
        # With fractions: whoever logs in again right after a change has a token from after it.
        now = self._clock.now().timestamp()
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user.id,
            "sid": session.id,
            "jti": uuid7(),
            "iat": now,
            "auth_time": session.created_at.timestamp(),
            "exp": int(now + ACCESS_LIFE.total_seconds()),
            "roles": user.roles,
            "typ": "access",
        }
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": kid})


def new_session_id() -> str:
    """`ses_...`."""
    return new_id("ses")


def new_refresh_token(session_id: str, epoch: int) -> tuple[str, RefreshToken]:
    """256 random bits that belong to this session: the text for its owner, and what the store may know.

    Here and below, `epoch` is that of the store: a token of another one matches nothing.
    """
    text = _new(_REFRESH, session_id)
    return text, RefreshToken(session_id, _digest(text, epoch))


def parse_refresh_token(text: str, epoch: int) -> RefreshToken | None:
    """What `text` claims to be; None when it cannot be one of ours."""
    owner = _owner(_REFRESH, text)
    return RefreshToken(f"ses_{owner}", _digest(text, epoch)) if owner else None


def new_mailed_token(owner_id: str, epoch: int) -> tuple[str, MailedToken]:
    """256 random bits that belong to this account or change: the text to be mailed, and what the store may know."""
    text = _new(_MAILED, owner_id)
    return text, MailedToken(owner_id[-32:], _digest(text, epoch))


def parse_mailed_token(text: str, epoch: int) -> MailedToken | None:
    """What `text` claims to be; None when it cannot be one of ours."""
    owner = _owner(_MAILED, text)
    return MailedToken(owner, _digest(text, epoch)) if owner else None


def _new(prefix: str, owner_id: str) -> str:
    raw = UUID(owner_id[-32:]).bytes + secrets.token_bytes(_SECRET_BYTES)
    return prefix + urlsafe_b64encode(raw).decode("ascii")


def _owner(prefix: str, text: str) -> str | None:
    """The 32 hexadecimal digits of whose it claims to be."""
    if len(text) != _TOKEN_CHARS or not text.startswith(prefix) or not text.isascii():
        return None
    try:
        raw = b64decode(text.removeprefix(prefix), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return raw[:16].hex()


def _digest(text: str, epoch: int) -> str:
    return sha256((f"{epoch}:{text}" if epoch else text).encode("ascii")).hexdigest()
