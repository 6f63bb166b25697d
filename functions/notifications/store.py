"""How messages and preferences are kept, and the listings that the use cases need."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from functions.notifications.domain import Erasure, Notification, Preferences, UnverifiedMail
from functions.runtime.store.port import EntityMapping, IndexKey, Page, Store

ERASURES_KEPT = timedelta(days=30)


def stamp(at: datetime) -> str:
    """A time as a sort key: as text it sorts as it does as time."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _indexes(notification: Notification) -> Iterable[IndexKey]:
    yield IndexKey("user", notification.user_id, stamp(notification.created_at))
    if notification.due_at is not None:
        yield IndexKey("due", "all", stamp(notification.due_at))


MAPPINGS = (
    EntityMapping(Notification, "notification", _indexes),
    EntityMapping(Preferences, "preferences"),
    EntityMapping(UnverifiedMail, "unverified_mail", expires_at=lambda mail: mail.expires_at),
    EntityMapping(Erasure, "erasure", expires_at=lambda erasure: erasure.at + ERASURES_KEPT),
)


async def notifications_of(store: Store, user_id: str, limit: int, cursor: str | None) -> Page[Notification]:
    """A person's messages, newest first."""
    return await store.page(Notification, "user", user_id, limit=limit, cursor=cursor, descending=True)


async def due(store: Store, now: datetime, cursor: str | None) -> Page[Notification]:
    """Messages that wait to be tried (again), the longest due first."""
    return await store.page(Notification, "due", "all", limit=20, cursor=cursor, until=stamp(now))
