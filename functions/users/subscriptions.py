"""The events that the users service subscribes to, and the method that handles each."""

from __future__ import annotations

from events.catalog import NotificationBounced, Payload, SweepDue
from functions.runtime.app import Handler
from functions.users.auth.signing_keys import SigningKeysService
from functions.users.service import UsersService


def subscriptions(users: UsersService, keys: SigningKeysService) -> dict[type[Payload], Handler]:
    """Return the handlers by payload type. The runtime deletes expired sessions and attempts in its own sweep."""
    return {NotificationBounced: users.on_notification_bounced, SweepDue: keys.on_sweep_due}
