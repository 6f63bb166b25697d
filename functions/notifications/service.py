"""Use cases: reading messages, preferences, erasing a person. Telling people things is in sending.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from functions.notifications import store
from functions.notifications.desk import Desk
from functions.notifications.domain import Erasure, Notification, Preferences, UnverifiedMail
from functions.notifications.rendering import TEMPLATES
from functions.runtime.errors import invalid, not_found
from functions.runtime.identity import Identity, require_self_or_admin, require_signed_in
from functions.runtime.ids import is_id
from functions.runtime.paging import page_limit
from functions.runtime.store.port import Changes, Page, Ref
from observability.failpoints import failpoint

_ERASED_AT_ONCE = 50


async def notifications_of(
    user_id: str, limit: int, cursor: str, caller: Identity, desk: Desk
) -> Page[Notification]:
    """A person's messages, newest first; an empty `user_id` means the caller's own."""
    user_id = _person(user_id, caller)
    return await store.notifications_of(desk.store, user_id, page_limit(limit), cursor or None)


async def notification(message_id: str, caller: Identity, desk: Desk) -> Notification:
    """One message, for its person or an admin; to others NOT_FOUND."""
    require_signed_in(caller)
    found = await desk.store.get(Notification, message_id)
    if found is None or not (caller.is_admin or (caller.subject == found.user_id and not caller.is_service)):
        raise not_found("Notification", "NOTIFICATION_NOT_FOUND")
    return found


async def preferences(user_id: str, caller: Identity, desk: Desk) -> Preferences:
    """What a person wants to be told: everything, by default."""
    user_id = _person(user_id, caller)
    return await desk.store.get(Preferences, user_id) or Preferences(user_id)


async def update_preferences(
    user_id: str,
    email_enabled: bool | None,
    muted: Sequence[str] | None,
    version: int | None,
    caller: Identity,
    desk: Desk,
) -> Preferences:
    """Replace what is not None. Raises INVALID_ARGUMENT (TEMPLATE_UNKNOWN), ABORTED (VERSION_MISMATCH)."""
    user_id = _person(user_id, caller)
    unknown = sorted(set(muted or ()) - TEMPLATES)
    if unknown:
        known = ", ".join(sorted(TEMPLATES))
        raise invalid(
            "There is no such template.",
            ("muted_templates", f"must be among {known}"),
            reason="TEMPLATE_UNKNOWN",
        )

    def change(found: Sequence[Any]) -> Changes[Preferences]:
        stored, request_purge = found
        if request_purge is not None:
            raise not_found("User", "USER_NOT_FOUND")
        changed = stored or Preferences(user_id)
        changed.change(email_enabled, muted, version)
        return Changes(changed, put=[changed])

    return await desk.store.transact([Ref(Preferences, user_id), Ref(Erasure, user_id)], change)


async def erase(user_id: str, desk: Desk) -> None:
    """An account is deleted: so is all that was written to the person. Repeatable."""
    now = desk.clock.now()
    await desk.store.transact(
        [Ref(Erasure, user_id)], lambda found: Changes(None, [] if found[0] else [Erasure(user_id, now)])
    )
    await _delete([Ref(Preferences, user_id), Ref(UnverifiedMail, user_id)], desk)
    while (page := await store.notifications_of(desk.store, user_id, _ERASED_AT_ONCE, None)).items:
        await _delete([Ref(Notification, message.id) for message in page.items], desk)
    desk.store.request_purge()


async def _delete(refs: Sequence[Ref], desk: Desk) -> None:
    def change(found: Sequence[Any]) -> Changes[None]:
        return Changes(None, delete=[entity for entity in found if entity is not None])

    failpoint("notifications.erase.before")
    await desk.store.transact(refs, change)
    failpoint("notifications.erase.after")


def _person(user_id: str, caller: Identity) -> str:
    """Whom a request is about; raises unless the caller is that person or an admin."""
    user_id = user_id or caller.subject
    require_self_or_admin(caller, user_id)
    if not is_id("usr", user_id):
        raise invalid("This is no user's id.", ("user_id", "must be usr_ and 32 hexadecimal digits"))
    return user_id
