"""A person's own data, as one document."""

from __future__ import annotations

from typing_extensions import TypedDict

from gateway.models.common import Moment
from gateway.models.notifications import Notification, Preferences
from gateway.models.orders import Order
from gateway.models.payments import Payment
from gateway.models.users import Address, User


class Export(TypedDict):
    """All data that the platform keeps about a person; payments are oldest first, orders and messages newest first."""

    exported_at: Moment
    profile: User
    addresses: list[Address]
    orders: list[Order]
    payments: list[Payment]
    notifications: list[Notification]
    preferences: Preferences
