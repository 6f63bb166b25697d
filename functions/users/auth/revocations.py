"""Revocations of access tokens before they expire: one expiring row for each user or session concerned.

Users share no row, so that any number of users may log out at once and no revocation displaces another. Verifiers read
the rows by time (see `functions.runtime.key_set`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from functions.runtime.key_set import REVOCATIONS_KEPT, subject_digest
from functions.runtime.store.port import IndexKey, Page, Store

RETENTION = timedelta(seconds=REVOCATIONS_KEPT)
"""The time after which every revoked token has expired everywhere: the token's lifetime plus clock differences."""
LEGACY_REVOCATIONS_IDS = ("outdated", "ended")
_BY_TIME, _ALL = "by_time", "all"


@dataclass
class Revocation:
    """A revocation, made at `at`, of all tokens of a user or a session that were issued before `before`.

    `id` is the digest of the user's or session's id.
    """

    id: str
    at: datetime
    before: datetime
    expires_at: datetime
    version: int = 0

    @staticmethod
    def of_user(user_id: str, now: datetime) -> Revocation:
        """Return a revocation of all tokens of this user issued up to now."""
        return Revocation(subject_digest(user_id), now, now, now + RETENTION)

    @staticmethod
    def of_session(session_id: str, now: datetime) -> Revocation:
        """Return a revocation of all tokens of this session.

        It also covers tokens issued after this call, because a refresh that is already committed may still issue one.
        """
        return Revocation(subject_digest(session_id), now, now + RETENTION, now + RETENTION)


@dataclass
class LegacyRevocations:
    """One of the two lists in which releases before December 2026 stored revocations. It is read but never written."""

    id: str
    before: dict[str, float] = field(default_factory=dict)
    version: int = 0

    def effective(self, now: datetime) -> dict[str, float]:
        """Return the entries whose tokens may not have expired yet, by digest."""
        expired = (now - RETENTION).timestamp()
        return {digest: at for digest, at in self.before.items() if at > expired}


def by_time(revocation: Revocation) -> Iterable[IndexKey]:
    """Yield the index entry that `revoked_since` reads."""
    yield IndexKey(_BY_TIME, _ALL, _sort(revocation.at))


async def revoked_since(store: Store, since: datetime, limit: int, cursor: str | None = None) -> Page[Revocation]:
    """Return a page of the revocations made at `since` or later, oldest first."""
    return await store.page(Revocation, _BY_TIME, _ALL, limit=limit, cursor=cursor, since=_sort(since))


def _sort(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
