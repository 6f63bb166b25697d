"""Access tokens that are invalid before they expire: one expiring row for each user or session concerned.

Nothing is shared between users: any number may log out at once, and no revocation displaces another. Verifiers read the
rows by time (see `functions.runtime.key_set`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from functions.runtime.key_set import REVOCATIONS_KEPT, subject_digest
from functions.runtime.store.port import IndexKey, Page, Store

RETENTION = timedelta(seconds=REVOCATIONS_KEPT)
"""Until the last token concerned has expired everywhere: its life, and clock differences."""
LEGACY_REVOCATIONS_IDS = ("outdated", "ended")
_BY_TIME, _ALL = "by_time", "all"


@dataclass
class Revocation:
    """Tokens issued before `before` are invalid. `id` is the digest of their user or session; `at` is the time of the
    revocation."""

    id: str
    at: datetime
    before: datetime
    expires_at: datetime
    version: int = 0

    @staticmethod
    def of_user(user_id: str, now: datetime) -> Revocation:
        """Revoke all tokens of this user issued up to now."""
        return Revocation(subject_digest(user_id), now, now, now + RETENTION)

    @staticmethod
    def of_session(session_id: str, now: datetime) -> Revocation:
        """Revoke all tokens of this session, including one that a refresh committed just before still issues."""
        return Revocation(subject_digest(session_id), now, now + RETENTION, now + RETENTION)


@dataclass
class LegacyRevocations:
    """One of two lists that releases before December 2026 kept instead of rows. It is read, and never written."""

    id: str
    before: dict[str, float] = field(default_factory=dict)
    version: int = 0

    def effective(self, now: datetime) -> dict[str, float]:
        """Return those whose tokens may not have expired yet, by digest."""
        expired = (now - RETENTION).timestamp()
        return {digest: at for digest, at in self.before.items() if at > expired}


def by_time(revocation: Revocation) -> Iterable[IndexKey]:
    """Yield the index entry that `revoked_since` reads."""
    yield IndexKey(_BY_TIME, _ALL, _sort(revocation.at))


async def revoked_since(
    store: Store, since: datetime, limit: int, cursor: str | None = None
) -> Page[Revocation]:
    """Return a page of what was revoked at `since` or later, oldest first."""
    return await store.page(Revocation, _BY_TIME, _ALL, limit=limit, cursor=cursor, since=_sort(since))


def _sort(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
