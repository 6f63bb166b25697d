"""The gRPC door: proto to use case and back."""

from __future__ import annotations

from typing import Any

from functions.notifications import feedback, service
from functions.notifications.desk import Desk
from functions.notifications.domain import Notification, Preferences
from functions.runtime.access import ANYBODY, SIGNED_IN
from functions.runtime.identity import current_caller
from functions.runtime.messages import timestamp
from proto.shop.notifications.v1 import notifications_pb2 as pb
from proto.shop.notifications.v1 import notifications_pb2_grpc

ACCESS = {
    "ListNotifications": SIGNED_IN,
    "GetNotification": SIGNED_IN,
    "ReceiveMailEvent": ANYBODY,
    "GetPreferences": SIGNED_IN,
    "UpdatePreferences": SIGNED_IN,
}
"""Who may call; the use cases ask for more."""


class Notifications(notifications_pb2_grpc.NotificationsServiceServicer):
    """See notifications.proto."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def ListNotifications(
        self, request: pb.ListNotificationsRequest, context: Any
    ) -> pb.ListNotificationsResponse:
        """See notifications.proto."""
        page = await service.notifications_of(
            request.user_id, request.limit, request.cursor, current_caller(), self._desk
        )
        return pb.ListNotificationsResponse(
            notifications=map(_notification, page.items), next_cursor=page.next_cursor or ""
        )

    async def GetNotification(
        self, request: pb.GetNotificationRequest, context: Any
    ) -> pb.GetNotificationResponse:
        """See notifications.proto."""
        return pb.GetNotificationResponse(
            notification=_notification(
                await service.notification(request.notification_id, current_caller(), self._desk)
            )
        )

    async def GetPreferences(
        self, request: pb.GetPreferencesRequest, context: Any
    ) -> pb.GetPreferencesResponse:
        """See notifications.proto."""
        return pb.GetPreferencesResponse(
            preferences=_preferences(await service.preferences(request.user_id, current_caller(), self._desk))
        )

    async def UpdatePreferences(
        self, request: pb.UpdatePreferencesRequest, context: Any
    ) -> pb.UpdatePreferencesResponse:
        """See notifications.proto."""
        changed = await service.update_preferences(
            request.user_id,
            request.email_enabled if request.HasField("email_enabled") else None,
            request.muted_templates.names if request.HasField("muted_templates") else None,
            request.version if request.HasField("version") else None,
            current_caller(),
            self._desk,
        )
        return pb.UpdatePreferencesResponse(preferences=_preferences(changed))

    async def ReceiveMailEvent(
        self, request: pb.ReceiveMailEventRequest, context: Any
    ) -> pb.ReceiveMailEventResponse:
        """See notifications.proto."""
        await feedback.receive(request.payload, request.secret, self._desk)
        return pb.ReceiveMailEventResponse()


def _notification(notification: Notification) -> pb.Notification:
    return pb.Notification(
        id=notification.id,
        user_id=notification.user_id,
        channel=notification.channel,
        template=notification.template,
        subject=notification.subject,
        body=notification.body,
        status=pb.NotificationStatus.Value(f"NOTIFICATION_STATUS_{notification.status}"),
        created_at=timestamp(notification.created_at),
        sent_at=timestamp(notification.sent_at) if notification.sent_at else None,
        order_id=notification.order_id,
    )


def _preferences(preferences: Preferences) -> pb.Preferences:
    return pb.Preferences(
        user_id=preferences.id,
        email_enabled=preferences.email_enabled,
        muted_templates=preferences.muted,
        version=preferences.version,
    )
