"""Events that the users service reacts to."""

from __future__ import annotations

from events.catalog import NotificationBounced, Payload, SweepDue
from functions.runtime.app import Handler
from functions.users.auth.signing_keys import SigningKeysService
from functions.users.service import UsersService


def subscriptions(users: UsersService, keys: SigningKeysService) -> dict[type[Payload], Handler]:
    """Return the handler of each event type. The runtime's own sweep deletes expired sessions and attempts."""
    return {NotificationBounced: users.on_notification_bounced, SweepDue: keys.on_sweep_due}
