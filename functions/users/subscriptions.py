"""Events that the users service reacts to."""

from __future__ import annotations

from events.catalog import NotificationBounced, Payload, SweepDue
from functions.runtime.app import Handler, ReceivedEvent
from functions.runtime.clock import Clock
from functions.runtime.store.port import Store
from functions.users import service
from functions.users.keys import KeyRing


def subscriptions(*, store: Store, keys: KeyRing, clock: Clock) -> dict[type[Payload], Handler]:
    """Use case by event type. Expired sessions and attempts are removed by the runtime's own sweep."""

    async def bounced(event: ReceivedEvent[NotificationBounced]) -> None:
        await service.mark_undeliverable(
            event.data.user_id, event.time, store=store, clock=clock, idempotency=event.inbox
        )

    async def sweep(event: ReceivedEvent[SweepDue]) -> None:
        await keys.sweep(event.inbox)

    return {NotificationBounced: bounced, SweepDue: sweep}
