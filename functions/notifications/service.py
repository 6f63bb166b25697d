"""Use cases of notifications: notify users of events, list messages, and change preferences."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from events.catalog import (
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderShipped,
    PaymentRefunded,
    StockLow,
    UserChallenged,
    UserDeleted,
    UserEmailChanged,
    UserEmailChangeRequested,
    UserPasswordChanged,
    UserRegistered,
)
from functions.notifications import messages, store
from functions.notifications.domain import Notification, Preferences, UnverifiedMail
from functions.notifications.rendering import TEMPLATES
from functions.notifications.sending import MessageSender
from functions.runtime.clock import Clock
from functions.runtime.erasure import Erasure, record_erasure
from functions.runtime.errors import invalid, not_found
from functions.runtime.identity import Identity, require_self_or_admin, require_signed_in
from functions.runtime.ids import is_id
from functions.runtime.inbox import InboxRecord
from functions.runtime.paging import page_limit
from functions.runtime.store.port import Changes, Page, Ref, Store
from functions.runtime.sweeps import sweep_deadline
from observability.failpoints import failpoints

log = logging.getLogger("shop.notifications")

_ERASURE_BATCH = 50


@dataclass(frozen=True)
class ListNotifications:
    """List the messages to a user, or to the caller if `user_id` is empty."""

    user_id: str
    limit: int
    cursor: str


@dataclass(frozen=True)
class UpdatePreferences:
    """Replace each preference that is not None. An empty `user_id` stands for the caller.

    `muted` has names of templates. `version` is the version that the caller has read; None skips the check.
    """

    user_id: str = ""
    email_enabled: bool | None = None
    muted: Sequence[str] | None = None
    version: int | None = None


class NotificationsService:
    """Use cases of notifications. Collaborators are fixed at start; methods are safe to call concurrently."""

    def __init__(self, store: Store, sender: MessageSender, clock: Clock) -> None:
        self._store = store
        self._sender = sender
        self._clock = clock

    async def list_notifications(self, query: ListNotifications, caller: Identity) -> Page[Notification]:
        """List a user's messages, newest first.

        Raises:
            PermissionDenied: the caller is neither that user nor an admin.
        """
        user_id = _authorized_user(query.user_id, caller)
        return await store.notifications_of(self._store, user_id, page_limit(query.limit), query.cursor or None)

    async def get(self, notification_id: str, caller: Identity) -> Notification:
        """Return a message.

        Raises NOT_FOUND (NOTIFICATION_NOT_FOUND), also if the caller is neither the recipient nor an admin.
        """
        require_signed_in(caller)
        found = await self._store.get(Notification, notification_id)
        is_recipient = found is not None and caller.subject == found.user_id and not caller.is_service
        if found is None or not (caller.is_admin or is_recipient):
            raise not_found("Notification", "NOTIFICATION_NOT_FOUND")
        return found

    async def get_preferences(self, user_id: str, caller: Identity) -> Preferences:
        """Return the preferences of a user, or of the caller if `user_id` is empty. The defaults send all messages."""
        user_id = _authorized_user(user_id, caller)
        return await self._store.get(Preferences, user_id) or Preferences(user_id)

    async def update_preferences(self, command: UpdatePreferences, caller: Identity) -> Preferences:
        """Change a user's preferences.

        Raises:
            InvalidArgument: TEMPLATE_UNKNOWN.
            NotFound: USER_NOT_FOUND for a deleted account.
            Aborted: VERSION_MISMATCH.
        """
        user_id = _authorized_user(command.user_id, caller)
        if set(command.muted or ()) - TEMPLATES:
            known = ", ".join(sorted(TEMPLATES))
            raise invalid(
                "There is no such template.", ("muted_templates", f"must be among {known}"), reason="TEMPLATE_UNKNOWN"
            )

        def change(found: Sequence[Any]) -> Changes[Preferences]:
            stored, erasure = found
            if erasure is not None:
                raise not_found("User", "USER_NOT_FOUND")
            changed = stored or Preferences(user_id)
            changed.change(command.email_enabled, command.muted, command.version)
            return Changes(changed, put=[changed])

        return await self._store.transact([Ref(Preferences, user_id), Ref(Erasure, user_id)], change)

    async def on_user_registered(self, event: UserRegistered, inbox: InboxRecord) -> None:
        """Send the welcome message to the user."""
        await self._sender.notify(event.user_id, messages.welcome(event), inbox)

    async def on_user_challenged(self, event: UserChallenged, inbox: InboxRecord) -> None:
        """Mail a token with which the user proves access to the account's mail."""
        await self._sender.notify(event.user_id, messages.challenged(event), inbox)

    async def on_email_change_requested(self, event: UserEmailChangeRequested, inbox: InboxRecord) -> None:
        """Mail the confirmation token to the new address."""
        await self._sender.notify(event.user_id, messages.email_change_requested(event), inbox)

    async def on_email_changed(self, event: UserEmailChanged, inbox: InboxRecord) -> None:
        """Mail to the former address a token that undoes the change."""
        await self._sender.notify(event.user_id, messages.email_changed(event), inbox)

    async def on_password_changed(self, event: UserPasswordChanged, inbox: InboxRecord) -> None:
        """Notify the user that the password was changed."""
        await self._sender.notify(event.user_id, messages.password_changed(event), inbox)

    async def on_order_confirmed(self, event: OrderConfirmed, inbox: InboxRecord) -> None:
        """Notify the buyer."""
        await self._sender.notify(event.user_id, messages.order_confirmed(event), inbox)

    async def on_order_cancelled(self, event: OrderCancelled, inbox: InboxRecord) -> None:
        """Notify the buyer."""
        await self._sender.notify(event.user_id, messages.order_cancelled(event), inbox)

    async def on_order_shipped(self, event: OrderShipped, inbox: InboxRecord) -> None:
        """Notify the buyer."""
        await self._sender.notify(event.user_id, messages.order_shipped(event), inbox)

    async def on_order_delivered(self, event: OrderDelivered, inbox: InboxRecord) -> None:
        """Notify the buyer."""
        await self._sender.notify(event.user_id, messages.order_delivered(event), inbox)

    async def on_payment_refunded(self, event: PaymentRefunded, inbox: InboxRecord) -> None:
        """Notify the buyer."""
        await self._sender.notify(event.user_id, messages.payment_refunded(event), inbox)

    async def on_stock_low(self, event: StockLow, inbox: InboxRecord) -> None:
        """Notify every administrator. Raises UNAVAILABLE if the users service does not answer."""
        await self._sender.notify_administrators(messages.stock_low(event), inbox)

    async def on_user_deleted(self, event: UserDeleted, inbox: InboxRecord) -> None:
        """Delete the user's messages and preferences. A repetition changes nothing."""
        user_id = event.user_id
        await record_erasure(self._store, user_id, self._clock.now())
        await self._delete([Ref(Preferences, user_id), Ref(UnverifiedMail, user_id)])
        while (page := await store.notifications_of(self._store, user_id, _ERASURE_BATCH, None)).items:
            await self._delete([Ref(Notification, message.id) for message in page.items])
        self._store.request_purge()

    async def sweep(self) -> None:
        """Send the messages that are due."""
        async with sweep_deadline(log):
            await self._sender.send_due()

    async def _delete(self, refs: Sequence[Ref]) -> None:
        def change(found: Sequence[Any]) -> Changes[None]:
            return Changes(None, delete=[entity for entity in found if entity is not None])

        with failpoints("notifications.erase"):
            await self._store.transact(refs, change)


def _authorized_user(user_id: str, caller: Identity) -> str:
    """Return the id of the user whom a request concerns. Raises an error unless the caller is that user or an admin."""
    user_id = user_id or caller.subject
    require_self_or_admin(caller, user_id)
    if not is_id("usr", user_id):
        raise invalid("The user id is not valid.", ("user_id", "must be usr_ and 32 hexadecimal digits"))
    return user_id
