"""Access tokens that are void before their time: those from before a person's roles or password changed or their
account was deleted, and those of sessions that were ended. Published with the keys, so that every verifier knows within
half a minute."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from functions.runtime.key_set import subject_digest
from functions.users.keyset import ACCESS_LIFE

OUTDATED_ID, ENDED_ID = "outdated", "ended"
MOST = 5_000
"""More at once than that, and the oldest live on until they expire: the list must stay one item of a database."""


@dataclass
class OutdatedTokens:
    """Until when (seconds since 1970) tokens are void that were given out, by the digest of the id of their person
    (OUTDATED_ID) or session (ENDED_ID): apart, so that however many log out, nobody's changed password is forgotten.
    """

    id: str = OUTDATED_ID
    before: dict[str, float] = field(default_factory=dict)
    version: int = 0

    def add(self, whose: str, now: datetime) -> None:
        """All tokens of this person or session given out up to now; forgets those that have expired anyway."""
        self.before = self.living(now)
        self.before.pop(subject_digest(whose), None)
        self.before[subject_digest(whose)] = now.timestamp()
        for oldest in list(self.before)[:-MOST]:
            del self.before[oldest]

    def living(self, now: datetime) -> dict[str, float]:
        """Those that still matter."""
        expired = (now - ACCESS_LIFE).timestamp()
        return {digest: at for digest, at in self.before.items() if at > expired}


def outdated(found: OutdatedTokens | None, user_id: str, now: datetime) -> OutdatedTokens:
    """What was `found`, with this person's tokens."""
    tokens = found or OutdatedTokens()
    tokens.add(user_id, now)
    return tokens


def ended(found: OutdatedTokens | None, session_id: str, now: datetime) -> OutdatedTokens:
    """What was `found`, with this session's tokens."""
    tokens = found or OutdatedTokens(ENDED_ID)
    tokens.add(session_id, now)
    return tokens
