"""Proof that somebody reads an account's mail: asked for to reset a password, or to verify an address."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest

MAILS = 3
_WINDOW = timedelta(minutes=15)


class Purpose(StrEnum):
    """What the proof is for."""

    PASSWORD_RESET = "PASSWORD_RESET"  # noqa: S105 - a name, no password
    EMAIL_VERIFICATION = "EMAIL_VERIFICATION"

    @property
    def life(self) -> timedelta:
        """How long a challenge may be answered."""
        return timedelta(hours=1) if self is Purpose.PASSWORD_RESET else timedelta(hours=24)


def challenge_id(purpose: Purpose, user_id: str) -> str:
    """One for each account and purpose: whoever asks again gets another token, and the one before is void."""
    return "chl_" + sha256(f"{purpose}\n{user_id}".encode()).hexdigest()[:32]


@dataclass
class Challenge:
    """What is to be answered, once, with the token that was mailed last; only its digest is kept.

    `email` is the digest of the address that the mail goes to: the proof is void for any other. `asked` are the
    latest requests.
    """

    id: str
    user_id: str
    email: str
    expires_at: datetime
    asked: list[datetime] = field(default_factory=list)
    token_digest: str = field(default="", repr=False)
    version: int = 0

    def ask(self, purpose: Purpose, email: str, now: datetime) -> bool:
        """Begin anew; False, and nothing happens, after three requests within 15 minutes."""
        recent = [at for at in self.asked if at + _WINDOW > now]
        if len(recent) >= MAILS:
            return False
        self.asked = [*recent, now]
        self.email, self.expires_at, self.token_digest = email, now + purpose.life, ""
        return True

    def issue(self, token_digest: str, now: datetime) -> bool:
        """From now on this token answers, and none before; False when there is no time left for it."""
        if now >= self.expires_at:
            return False
        self.token_digest = token_digest
        return True

    def is_answered_by(self, token_digest: str, email: str, now: datetime) -> bool:
        """Whether this is the token, in time, for the account's address of today (a digest)."""
        right = bool(self.token_digest) and compare_digest(token_digest, self.token_digest)
        return right and email == self.email and now < self.expires_at
