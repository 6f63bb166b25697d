"""The notifications API through a real gRPC server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from functions.notifications.bootstrap import bootstrap
from functions.notifications.channels.mailbox import Mailbox
from functions.notifications.settings import Settings
from functions.notifications.tests.shop import ADA, BOB, ORDER, Shop
from functions.notifications.tests.test_messages import CONFIRMED
from functions.runtime.process import ServiceRunner
from functions.runtime.rpc.errors import from_rpc_error
from functions.runtime.tests.support import FakeVerifier, bearer, keyed
from proto.shop.notifications.v1 import notifications_pb2 as pb
from proto.shop.notifications.v1 import notifications_pb2_grpc

ADMIN = "admin:usr_" + "d" * 32


class Client:
    """A client of a notifications service that is served; `shop` is that service."""

    def __init__(self, shop: Shop, channel: grpc.aio.Channel) -> None:
        self.shop = shop
        self.stub = notifications_pb2_grpc.NotificationsServiceStub(channel)

    async def call(self, method: str, request: Any, token: str = f"user:{ADA}") -> Any:
        return await getattr(self.stub, method)(request, metadata=bearer(token), timeout=5)

    async def refused(self, method: str, request: Any, token: str = f"user:{ADA}") -> tuple[str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(method, request, token)
        error = from_rpc_error(raised.value)
        return error.code.value, error.reason


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    shop = Shop(Mailbox())
    settings = Settings(
        store_url="memory:",
        broker_url="http://127.0.0.1:1/",
        drain_seconds=0.2,
        mail_events_secret="opensesame",
    )
    function = bootstrap(
        settings,
        store=shop.store,
        clock=shop.clock,
        channel=shop.channel,
        users=shop.users,
        verifier=FakeVerifier(),
    )
    runner = ServiceRunner(keyed(function))
    await runner.start()
    async with grpc.aio.insecure_channel(runner.grpc_address) as channel:
        yield Client(shop, channel)
    await runner.stop()


async def test_a_person_pages_through_their_messages_newest_first(client: Client) -> None:
    for number in range(3):
        await client.shop.receive(CONFIRMED, str(number))
        client.shop.clock.advance(timedelta(seconds=1))
    first = await client.call("ListNotifications", pb.ListNotificationsRequest(limit=2))
    rest = await client.call("ListNotifications", pb.ListNotificationsRequest(limit=2, cursor=first.next_cursor))
    times = [message.created_at.ToDatetime() for message in [*first.notifications, *rest.notifications]]
    assert len(times) == 3
    assert times == sorted(times, reverse=True)
    assert rest.next_cursor == ""


async def test_a_message_shows_its_text_to_its_person_and_to_admins(client: Client) -> None:
    await client.shop.receive(CONFIRMED)
    (line,) = (await client.call("ListNotifications", pb.ListNotificationsRequest(user_id=ADA), ADMIN)).notifications
    request = pb.GetNotificationRequest(notification_id=line.id)
    for token in (f"user:{ADA}", ADMIN):
        message = (await client.call("GetNotification", request, token)).notification
        assert (message.channel, message.template, message.order_id) == ("mailbox", "order_confirmed", ORDER)
        assert message.status == pb.NOTIFICATION_STATUS_SENT
        assert message.subject == "Your order is confirmed"
        assert ORDER in message.body
        assert message.HasField("sent_at")
    gone = ("NOT_FOUND", "NOTIFICATION_NOT_FOUND")
    assert await client.refused("GetNotification", request, f"user:{BOB}") == gone
    assert await client.refused("GetNotification", pb.GetNotificationRequest(notification_id="x")) == gone


async def test_nobody_reads_anothers_messages_or_preferences(client: Client) -> None:
    for method, request in (
        ("ListNotifications", pb.ListNotificationsRequest(user_id=ADA)),
        ("GetPreferences", pb.GetPreferencesRequest(user_id=ADA)),
        ("UpdatePreferences", pb.UpdatePreferencesRequest(user_id=ADA, email_enabled=False)),
    ):
        assert (await client.refused(method, request, f"user:{BOB}"))[0] == "PERMISSION_DENIED"
        assert (await client.refused(method, request, "service:orders"))[0] == "PERMISSION_DENIED"


async def test_preferences_hold_defaults_until_they_are_changed(client: Client) -> None:
    preferences = (await client.call("GetPreferences", pb.GetPreferencesRequest())).preferences
    assert (preferences.user_id, preferences.email_enabled, preferences.version) == (ADA, True, 0)
    muted = pb.MutedTemplates(names=["order_shipped", "welcome", "welcome"])
    changed = (
        await client.call("UpdatePreferences", pb.UpdatePreferencesRequest(muted_templates=muted, version=0))
    ).preferences
    assert (list(changed.muted_templates), changed.email_enabled) == (["order_shipped", "welcome"], True)
    off = pb.UpdatePreferencesRequest(email_enabled=False, version=changed.version)
    changed = (await client.call("UpdatePreferences", off)).preferences
    assert (len(changed.muted_templates), changed.email_enabled) == (2, False)
    none = pb.UpdatePreferencesRequest(muted_templates=pb.MutedTemplates())
    assert list(((await client.call("UpdatePreferences", none)).preferences).muted_templates) == []
    assert (
        (await client.call("GetPreferences", pb.GetPreferencesRequest(user_id=ADA), ADMIN)).preferences
    ).version == 3


async def test_a_change_of_preferences_that_others_overtook_is_refused(client: Client) -> None:
    request = pb.UpdatePreferencesRequest(email_enabled=False, version=0)
    await client.call("UpdatePreferences", request)
    assert await client.refused("UpdatePreferences", request) == ("ABORTED", "VERSION_MISMATCH")


async def test_invalid_preferences_are_refused(client: Client) -> None:
    unknown = pb.UpdatePreferencesRequest(muted_templates=pb.MutedTemplates(names=["spam"]))
    assert await client.refused("UpdatePreferences", unknown) == ("INVALID_ARGUMENT", "TEMPLATE_UNKNOWN")
    nobody = pb.GetPreferencesRequest(user_id="ada")
    assert (await client.refused("GetPreferences", nobody, ADMIN))[0] == "INVALID_ARGUMENT"
    assert (await client.refused("ListNotifications", pb.ListNotificationsRequest(limit=101)))[0] == (
        "INVALID_ARGUMENT"
    )


async def test_mail_events_need_the_secret_and_no_token(client: Client) -> None:
    payload = b'{"id": "1", "detail": {}}'
    await client.stub.ReceiveMailEvent(pb.ReceiveMailEventRequest(payload=payload, secret="opensesame"), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await client.stub.ReceiveMailEvent(pb.ReceiveMailEventRequest(payload=payload), timeout=5)
    assert from_rpc_error(raised.value).reason == "SECRET_INVALID"
