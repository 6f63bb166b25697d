"""Routes of the caller's notifications and notification preferences."""

from __future__ import annotations

from gateway import api_errors as errors
from gateway.dependencies import NotificationsClient
from gateway.models import notifications as models
from gateway.models.common import view
from gateway.preconditions import Precondition
from gateway.routes.parameters import Cursor, Limit, NotificationId
from gateway.routing import Access, ApiRouter
from proto.shop.notifications.v1 import notifications_pb2 as pb

router = ApiRouter("notifications")


@router.get("/v1/notifications", access=Access.SIGNED_IN)
async def list_notifications(
    notifications: NotificationsClient, limit: Limit = 20, cursor: Cursor = ""
) -> models.NotificationPage:
    """List the caller's messages, newest first."""
    query = pb.ListNotificationsRequest(limit=limit, cursor=cursor)
    found = await notifications.read(notifications.stub.ListNotifications, query)
    return {
        "items": [models.notification_line(message) for message in found.notifications],
        "next_cursor": found.next_cursor or None,
    }


async def _preferences(notifications: NotificationsClient) -> pb.Preferences:
    found = await notifications.read(notifications.stub.GetPreferences, pb.GetPreferencesRequest())
    return found.preferences


@router.get("/v1/notifications/preferences", access=Access.SIGNED_IN, etag=True)
async def read_preferences(notifications: NotificationsClient) -> models.Preferences:
    """Read the caller's notification preferences."""
    return view(models.Preferences, await _preferences(notifications))


@router.put("/v1/notifications/preferences", access=Access.SIGNED_IN, etag=True, errors=[errors.TEMPLATE_UNKNOWN])
async def set_preferences(
    body: models.PreferencesIn, notifications: NotificationsClient, if_match: Precondition
) -> models.Preferences:
    """Change the caller's notification preferences.

    Absent fields stay unchanged.
    """

    async def current() -> int:
        return (await _preferences(notifications)).version

    muted = body.muted_templates
    command = pb.UpdatePreferencesRequest(
        email_enabled=body.email_enabled,
        muted_templates=pb.MutedTemplates(names=muted) if muted is not None else None,
        version=await if_match.version(current),
    )
    updated = await notifications.write(notifications.stub.UpdatePreferences, command)
    return view(models.Preferences, updated.preferences)


@router.get("/v1/notifications/{notification_id}", access=Access.SIGNED_IN, errors=[errors.NOTIFICATION_NOT_FOUND])
async def read_notification(notification_id: NotificationId, notifications: NotificationsClient) -> models.Notification:
    """Read a message with its text."""
    query = pb.GetNotificationRequest(notification_id=notification_id)
    found = await notifications.read(notifications.stub.GetNotification, query)
    return models.notification(found.notification)
