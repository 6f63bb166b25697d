"""The export of all data that the platform keeps about one person, streamed page by page from each domain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from functions.runtime import grpc_client
from functions.runtime.errors import TRANSIENT, ServiceError
from gateway.clients import Clients, ServiceClient
from gateway.models import common, notifications, orders, payments, users
from gateway.models.common import view
from gateway.responses import until_disconnected
from proto.shop.notifications.v1 import notifications_pb2
from proto.shop.orders.v1 import orders_pb2
from proto.shop.payments.v1 import payments_pb2
from proto.shop.users.v1 import users_pb2

_PAGE = 25  # entities a page, so that an export holds little more than a hundred in memory
_PAGE_SECONDS = 5.0
_PAGE_RETRY_SECONDS = 60.0  # for the retries of one page: a domain may restart meanwhile
_LONGEST = 600.0  # seconds for the whole document
_PAUSE = 1.0
_HEADERS = {"cache-control": "no-store", "content-disposition": 'attachment; filename="shop-export.json"'}
_encode = msgspec.json.Encoder().encode


class Export(TypedDict):
    """All data that the platform keeps about a person; payments are oldest first, orders and messages newest first."""

    exported_at: common.Moment
    profile: users.User
    addresses: list[users.Address]
    orders: list[orders.Order]
    payments: list[payments.Payment]
    notifications: list[notifications.Notification]
    preferences: notifications.Preferences


class _List(NamedTuple):
    """A list to export. `read` returns the page of a cursor; `shown` converts a page's items to the API's form."""

    name: str
    first: Any
    read: Callable[[str], Awaitable[Any]]
    shown: Callable[[Any], Iterable[Mapping[str, Any]]]


class DataExport(Response):
    """A person's data as one JSON document. It is streamed, so that memory does not limit its size.

    The first page of every list is read before the response begins, so that the error of an unavailable domain is a
    problem document. Later pages are retried for a minute. The connection is closed within the body if a page still
    cannot be read, or if the client reads for over ten minutes. So an incomplete export is never a valid document.
    """

    media_type = "application/json"

    def __init__(self, head: Mapping[str, Any], lists: Iterable[_List]) -> None:
        super().__init__(None, 200, _HEADERS)
        # Starlette set the content length of an empty body; the length of this body is not known.
        self.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]
        self._head = head
        self._lists = lists

    @staticmethod
    async def open(clients: Clients, user_id: str, own: users_pb2.ExportUserResponse) -> DataExport:
        """Start an export for the signed-in `user_id`. Raises ServiceError if one of the domains does not respond.

        `own` is the users service's response to ExportUser, which also checked that the caller may export.
        """
        messages = clients.notifications
        placed, paid, told, preferences = await asyncio.gather(
            _list(
                "orders",
                clients.orders,
                clients.orders.stub.ListOrders,
                orders_pb2.ListOrdersRequest(user_id=user_id),
                lambda page: map(orders.order, page.orders),
            ),
            _list(
                "payments",
                clients.payments,
                clients.payments.stub.ListPayments,
                payments_pb2.ListPaymentsRequest(user_id=user_id),
                lambda page: map(payments.payment, page.payments),
            ),
            _list(
                "notifications",
                messages,
                messages.stub.ListNotifications,
                notifications_pb2.ListNotificationsRequest(user_id=user_id),
                lambda page: map(notifications.notification, page.notifications),
            ),
            messages.read(messages.stub.GetPreferences, notifications_pb2.GetPreferencesRequest(user_id=user_id)),
        )
        head = {
            "exported_at": datetime.now(UTC),
            "profile": users.user(own.user),
            "addresses": [view(users.Address, address) for address in own.addresses],
            "preferences": view(notifications.Preferences, preferences.preferences),
        }
        return DataExport(head, [placed, paid, told])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the document. Raises ServiceError when it cannot be completed."""
        scope["request_context"].streaming = True
        gone = asyncio.ensure_future(until_disconnected(receive))
        try:
            async with asyncio.timeout(_LONGEST):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for chunk in self._chunks():
                    if gone.done():
                        return
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()

    async def _chunks(self) -> AsyncIterator[bytes]:
        yield _encode(self._head)[:-1]
        for each in self._lists:
            yield b',"%b":[' % each.name.encode()
            separator = b""
            page, read, shown = each.first, each.read, each.shown
            while True:
                for item in shown(page):
                    yield separator + _encode(item)
                    separator = b","
                if not page.next_cursor:
                    break
                page = await read(page.next_cursor)
            yield b"]"
        yield b"}"


async def _list(
    name: str,
    client: ServiceClient[Any],
    method: Callable[..., Awaitable[Any]],
    request: Any,
    shown: Callable[[Any], Iterable[Mapping[str, Any]]],
) -> _List:
    request.limit = _PAGE

    async def read(cursor: str) -> Any:
        request.cursor = cursor
        return await _read_page(client, method, request)

    return _List(name, await client.read(method, request), read, shown)


async def _read_page(client: ServiceClient[Any], method: Callable[..., Awaitable[Any]], request: Any) -> Any:
    """Read a page, retrying transient failures. Raises ServiceError."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + _PAGE_RETRY_SECONDS
    while True:
        grpc_client.enter_deadline(_PAGE_SECONDS)
        try:
            return await client.read(method, request)
        except ServiceError as error:
            if error.code not in TRANSIENT or loop.time() >= ends:
                raise
        await asyncio.sleep(_PAUSE)
