"""Entity mappings of messages and preferences, and the listings that the use cases read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from functions.notifications.domain import Notification, Preferences, UnverifiedMail
from functions.runtime.clock import sortable
from functions.runtime.erasure import ERASURE_MAPPING
from functions.runtime.store.port import EntityMapping, IndexKey, Page, Store


def _indexes(notification: Notification) -> Iterable[IndexKey]:
    yield IndexKey("user", notification.user_id, sortable(notification.created_at))
    if notification.due_at is not None:
        yield IndexKey("due", "all", sortable(notification.due_at))


MAPPINGS = (
    EntityMapping(Notification, "notification", _indexes),
    EntityMapping(Preferences, "preferences"),
    EntityMapping(UnverifiedMail, "unverified_mail", expires_at=lambda mail: mail.expires_at),
    ERASURE_MAPPING,
)


async def notifications_of(store: Store, user_id: str, limit: int, cursor: str | None) -> Page[Notification]:
    """List a user's messages, newest first."""
    return await store.page(Notification, "user", user_id, limit=limit, cursor=cursor, descending=True)


async def due(store: Store, now: datetime, cursor: str | None) -> Page[Notification]:
    """List the pending messages whose next attempt is due, in the order of their due times."""
    return await store.page(Notification, "due", "all", limit=20, cursor=cursor, until=sortable(now))
