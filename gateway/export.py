"""All that the platform keeps about one person, gathered from the domains that keep it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from gateway.clients import Client, Clients
from gateway.models import notifications, orders, payments, users
from gateway.models.export import Export
from proto.shop.notifications.v1 import notifications_pb2
from proto.shop.orders.v1 import orders_pb2
from proto.shop.payments.v1 import payments_pb2
from proto.shop.users.v1 import users_pb2

_PAGE = 100


async def gather(clients: Clients, user_id: str) -> Export:
    """On behalf of the signed-in `user_id`; raises ServiceError when one of the domains does not answer."""
    who, messages = clients.users, clients.notifications
    profile, addresses, placed, paid, told, preferences = await asyncio.gather(
        who.read(who.stub.GetUser, users_pb2.GetUserRequest(user_id=user_id)),
        who.read(who.stub.ListAddresses, users_pb2.ListAddressesRequest(user_id=user_id)),
        _all(clients.orders, clients.orders.stub.ListOrders, orders_pb2.ListOrdersRequest(user_id=user_id)),
        _all(
            clients.payments,
            clients.payments.stub.ListPayments,
            payments_pb2.ListPaymentsRequest(user_id=user_id),
        ),
        _all(
            messages,
            messages.stub.ListNotifications,
            notifications_pb2.ListNotificationsRequest(user_id=user_id),
        ),
        messages.read(messages.stub.GetPreferences, notifications_pb2.GetPreferencesRequest(user_id=user_id)),
    )
    return {
        "exported_at": datetime.now(UTC),
        "profile": users.user(profile.user),
        "addresses": [users.address(address) for address in addresses.addresses],
        "orders": [orders.order(order) for page in placed for order in page.orders],
        "payments": [payments.payment(payment) for page in paid for payment in page.payments],
        "notifications": [notifications.notification(each) for page in told for each in page.notifications],
        "preferences": notifications.preferences(preferences.preferences),
    }


async def _all(client: Client[Any], method: Callable[..., Awaitable[Any]], request: Any) -> list[Any]:
    """Every page of a list."""
    request.limit = _PAGE
    pages = [await client.read(method, request)]
    while pages[-1].next_cursor:
        request.cursor = pages[-1].next_cursor
        pages.append(await client.read(method, request))
    return pages
