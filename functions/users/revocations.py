"""Access tokens that are void before their time: one expiring row for each person or session concerned.

Nothing is shared between people, so that any number may log out at once and nobody pushes anybody out. Verifiers read
the rows by time (see `functions.runtime.key_set`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from functions.runtime.key_set import REVOCATIONS_KEPT, subject_digest
from functions.runtime.store.port import IndexKey, Page, Store

KEPT = timedelta(seconds=REVOCATIONS_KEPT)
"""Until the last token concerned has expired everywhere: its life, and clocks that differ."""
_BY_TIME, _ALL = "by_time", "all"


@dataclass
class Revocation:
    """Tokens issued before `before` are void; `id` is the digest of their person or session, `at` when it was said."""

    id: str
    at: datetime
    before: datetime
    expires_at: datetime
    version: int = 0

    @staticmethod
    def of_person(user_id: str, now: datetime) -> Revocation:
        """All tokens of this person issued up to now."""
        return Revocation(subject_digest(user_id), now, now, now + KEPT)

    @staticmethod
    def of_session(session_id: str, now: datetime) -> Revocation:
        """All tokens of this session: also one that a refresh still issues, which committed just before."""
        return Revocation(subject_digest(session_id), now, now + KEPT, now + KEPT)


def by_time(revocation: Revocation) -> Iterable[IndexKey]:
    """The index that `revoked_since` reads."""
    yield IndexKey(_BY_TIME, _ALL, _sort(revocation.at))


async def revoked_since(
    store: Store, since: datetime, limit: int, cursor: str | None = None
) -> Page[Revocation]:
    """What was revoked at `since` or later, oldest first."""
    return await store.page(Revocation, _BY_TIME, _ALL, limit=limit, cursor=cursor, since=_sort(since))


def _sort(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


@dataclass
class OutdatedTokens:
    """One of two lists that releases before December 2026 kept instead of rows: read for as long as they matter."""

    id: str
    before: dict[str, float] = field(default_factory=dict)
    version: int = 0

    def living(self, now: datetime) -> dict[str, float]:
        """Those that still matter, by digest."""
        expired = (now - KEPT).timestamp()
        return {digest: at for digest, at in self.before.items() if at > expired}


OUTDATED_IDS = ("outdated", "ended")
