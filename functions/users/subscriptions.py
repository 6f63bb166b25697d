"""Events that the users service reacts to."""

from __future__ import annotations

from events.catalog import NotificationBounced, Payload, SweepDue
from functions.runtime.app import Handler
from functions.runtime.clock import Clock
from functions.runtime.inbox import InboxRecord
from functions.runtime.store.port import Store
from functions.users import service
from functions.users.keys import KeyRing


def subscriptions(*, store: Store, keys: KeyRing, clock: Clock) -> dict[type[Payload], Handler]:
    """Use case by event type. Expired sessions and attempts are removed by the runtime's own sweep."""

    async def bounced(event: NotificationBounced, inbox: InboxRecord) -> None:
        await service.mark_undeliverable(
            event.user_id, inbox.time, store=store, clock=clock, idempotency=inbox
        )

    async def sweep(_: SweepDue, inbox: InboxRecord) -> None:
        await keys.sweep(inbox)

    return {NotificationBounced: bounced, SweepDue: sweep}
