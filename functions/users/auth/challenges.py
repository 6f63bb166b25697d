"""Challenges: a mailed token proves that its bearer can read the mail of an address."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest

from functions.runtime.errors import ServiceError, invalid

MAX_MAILS = 3
"""Maximum number of mails for a challenge in 15 minutes that requests from one network cause."""
MAX_MAILS_IN_ALL = 10
"""Maximum number of mails for a challenge in 15 minutes. It exceeds MAX_MAILS, so that strangers on one network cannot
use up the owner's quota.
"""
_WINDOW = timedelta(minutes=15)
MAX_ISSUED = 100
"""Maximum number of tokens that are kept for a challenge. Each failed attempt to send a mail also issues a token.
Within the quota of requests, strangers cannot cause so many.
"""


class Purpose(StrEnum):
    """The action that answering a challenge allows."""

    PASSWORD_RESET = "PASSWORD_RESET"  # noqa: S105 - a name, no password
    # A new password for the owner of an address that somebody tried to register. It is separate from PASSWORD_RESET, so
    # that strangers cannot use up the owner's quota.
    REGISTRATION = "REGISTRATION"
    EMAIL_VERIFICATION = "EMAIL_VERIFICATION"
    EMAIL_CHANGE = "EMAIL_CHANGE"
    EMAIL_UNDO = "EMAIL_UNDO"

    @property
    def lifetime(self) -> timedelta:
        """The time within which a challenge may be answered."""
        return _LIFETIMES[self]


_LIFETIMES = {
    Purpose.PASSWORD_RESET: timedelta(hours=1),
    Purpose.REGISTRATION: timedelta(hours=1),
    Purpose.EMAIL_VERIFICATION: timedelta(hours=24),
    Purpose.EMAIL_CHANGE: timedelta(hours=24),
    Purpose.EMAIL_UNDO: timedelta(days=7),
}
PASSWORD_RESETS = (Purpose.PASSWORD_RESET, Purpose.REGISTRATION)
ACCOUNT_PURPOSES = tuple(purpose for purpose in Purpose if purpose is not Purpose.EMAIL_UNDO)
"""The purposes that have one challenge for each account. EMAIL_UNDO has one for each change of an address."""


def challenge_id(purpose: Purpose, owner_id: str) -> str:
    """Return the id of a challenge.

    An owner (an account, or a change of an account's address) has one challenge for each purpose.
    """
    return "chl_" + sha256(f"{purpose}\n{owner_id}".encode()).hexdigest()[:32]


def invalid_mailed_token() -> ServiceError:
    """Return INVALID_ARGUMENT (MAILED_TOKEN_INVALID), the same error for every problem with a token."""
    return invalid(
        "The token is invalid, used or expired.",
        ("token", "must be a mailed token that is not used and not expired"),
        reason="MAILED_TOKEN_INVALID",
    )


@dataclass
class IssuedToken:
    """The digest and expiry of a token that was issued for a mail."""

    digest: str = field(repr=False)
    expires_at: datetime


@dataclass
class Challenge:
    """A challenge that is answered once, with any of the tokens that were mailed for it.

    `email` is the digest of the address to which the mail goes: the tokens prove nothing about another address.
    `address` is the address itself, or empty if it is the account's present address. `asked` holds the times of the
    latest requests, and `origins` the digest of each request's network. A new request for the same address leaves the
    tokens of earlier mails valid until they expire, so that a stranger's request cannot invalidate the owner's mail.
    """

    id: str
    user_id: str
    email: str
    expires_at: datetime
    asked: list[datetime] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    address: str = field(default="", repr=False)
    issued: list[IssuedToken] = field(default_factory=list)
    version: int = 0

    def request(self, purpose: Purpose, email: str, now: datetime, address: str = "", origin: str = "") -> bool:
        """Record a request for a mail from the network `origin`, and return True.

        After three requests of one origin within 15 minutes, or ten in all, return False and change nothing. If `email`
        is another one than before, the tokens that were mailed for the challenge become invalid.
        """
        origins = [*self.origins, *[""] * len(self.asked)]  # requests stored by an earlier release have none
        recent = [(at, by) for at, by in zip(self.asked, origins, strict=False) if at + _WINDOW > now]
        if len(recent) >= MAX_MAILS_IN_ALL or sum(by == origin for _, by in recent) >= MAX_MAILS:
            return False
        if email != self.email:
            self.issued = []
        self.asked = [*(at for at, _ in recent), now]
        self.origins = [*(by for _, by in recent), origin]
        self.email, self.address, self.expires_at = email, address, now + purpose.lifetime
        return True

    def issue(self, token_digest: str, now: datetime) -> bool:
        """Accept this token as an additional answer. Return False if the challenge has expired."""
        if now >= self.expires_at:
            return False
        unexpired = [token for token in self.issued if now < token.expires_at]
        self.issued = [*unexpired, IssuedToken(token_digest, self.expires_at)][-MAX_ISSUED:]
        return True

    def is_answered_by(self, token_digest: str, email: str, now: datetime) -> bool:
        """Return whether the token was issued for the address with the digest `email` and has not expired."""
        unexpired = [token.digest for token in self.issued if now < token.expires_at]
        return any(compare_digest(token_digest, digest) for digest in unexpired) and email == self.email
