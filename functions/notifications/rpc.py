"""The gRPC servicer of notifications, which converts messages to commands and entities to messages."""

from __future__ import annotations

from typing import Any

from functions.notifications.channels.feedback import FeedbackService
from functions.notifications.domain import Notification, Preferences
from functions.notifications.service import ListNotifications, NotificationsService, UpdatePreferences
from functions.runtime.identity import ANYBODY, SIGNED_IN, current_caller
from functions.runtime.messages import optional, to_message
from proto.shop.notifications.v1 import notifications_pb2 as pb
from proto.shop.notifications.v1 import notifications_pb2_grpc

ACCESS = {
    "ListNotifications": SIGNED_IN,
    "GetNotification": SIGNED_IN,
    "ReceiveMailEvent": ANYBODY,
    "GetPreferences": SIGNED_IN,
    "UpdatePreferences": SIGNED_IN,
}
"""The access rule of each method. The use cases check ownership."""


class NotificationsServicer(notifications_pb2_grpc.NotificationsServiceServicer):
    """shop.notifications.v1.NotificationsService. notifications.proto describes the methods."""

    def __init__(self, notifications: NotificationsService, feedback: FeedbackService) -> None:
        self._notifications = notifications
        self._feedback = feedback

    async def ListNotifications(
        self, request: pb.ListNotificationsRequest, context: Any
    ) -> pb.ListNotificationsResponse:
        query = ListNotifications(request.user_id, request.limit, request.cursor)
        page = await self._notifications.list_notifications(query, current_caller())
        return pb.ListNotificationsResponse(
            notifications=map(_notification, page.items), next_cursor=page.next_cursor or ""
        )

    async def GetNotification(self, request: pb.GetNotificationRequest, context: Any) -> pb.GetNotificationResponse:
        found = await self._notifications.get(request.notification_id, current_caller())
        return pb.GetNotificationResponse(notification=_notification(found))

    async def GetPreferences(self, request: pb.GetPreferencesRequest, context: Any) -> pb.GetPreferencesResponse:
        found = await self._notifications.get_preferences(request.user_id, current_caller())
        return pb.GetPreferencesResponse(preferences=_preferences(found))

    async def UpdatePreferences(
        self, request: pb.UpdatePreferencesRequest, context: Any
    ) -> pb.UpdatePreferencesResponse:
        command = UpdatePreferences(
            request.user_id,
            optional(request, "email_enabled"),
            request.muted_templates.names if request.HasField("muted_templates") else None,
            optional(request, "version"),
        )
        changed = await self._notifications.update_preferences(command, current_caller())
        return pb.UpdatePreferencesResponse(preferences=_preferences(changed))

    async def ReceiveMailEvent(self, request: pb.ReceiveMailEventRequest, context: Any) -> pb.ReceiveMailEventResponse:
        await self._feedback.receive(request.payload, request.secret)
        return pb.ReceiveMailEventResponse()


def _notification(notification: Notification) -> pb.Notification:
    return to_message(pb.Notification, notification)


def _preferences(preferences: Preferences) -> pb.Preferences:
    return to_message(pb.Preferences, preferences, user_id=preferences.id, muted_templates=preferences.muted)
