"""What the caller was told, and wants to be told."""

from __future__ import annotations

from fastapi import Request, Response

from gateway.middleware.request_context import clients_of
from gateway.models import notifications as models
from gateway.responses import answer, conditional, etag, expected_version
from gateway.route_options import declare
from gateway.routes.params import Cursor, Limit, NotificationId, routes
from proto.shop.notifications.v1 import notifications_pb2 as pb

router = routes("notifications")


@router.get("/v1/notifications", **declare("signed-in", 200, models.NotificationPage))
async def list_notifications(request: Request, limit: Limit = 20, cursor: Cursor = "") -> Response:
    """List one's own messages, newest first."""
    notifications = clients_of(request).notifications
    wanted = pb.ListNotificationsRequest(limit=limit, cursor=cursor)
    found = await notifications.read(notifications.stub.ListNotifications, wanted)
    page: models.NotificationPage = {
        "items": [models.notification_line(message) for message in found.notifications],
        "next_cursor": found.next_cursor or None,
    }
    return answer(page)


async def _preferences(request: Request) -> pb.Preferences:
    notifications = clients_of(request).notifications
    return (
        await notifications.read(notifications.stub.GetPreferences, pb.GetPreferencesRequest())
    ).preferences


@router.get("/v1/notifications/preferences", **declare("signed-in", 200, models.Preferences, tagged="read"))
async def read_preferences(request: Request) -> Response:
    """Read what one wants to be told."""
    return conditional(request, models.preferences(await _preferences(request)))


@router.put(
    "/v1/notifications/preferences",
    **declare(
        "signed-in",
        200,
        models.Preferences,
        tagged="write",
        problems={400: "INVALID_ARGUMENT, MALFORMED_JSON, TEMPLATE_UNKNOWN"},
    ),
)
async def set_preferences(request: Request, body: models.PreferencesIn) -> Response:
    """Say what one wants to be told.

    What is absent stays as it is.
    """
    notifications = clients_of(request).notifications

    async def current() -> int:
        return (await _preferences(request)).version

    muted = body.muted_templates
    wanted = pb.UpdatePreferencesRequest(
        email_enabled=body.email_enabled,
        muted_templates=pb.MutedTemplates(names=muted) if muted is not None else None,
        version=await expected_version(request, current),
    )
    stored = models.preferences(
        (await notifications.write(notifications.stub.UpdatePreferences, wanted)).preferences
    )
    return answer(stored, tag=etag(stored["version"]))


@router.get(
    "/v1/notifications/{notification_id}",
    **declare("signed-in", 200, models.Notification, problems={404: "NOTIFICATION_NOT_FOUND"}),
)
async def read_notification(request: Request, notification_id: NotificationId) -> Response:
    """Read a message with its text."""
    notifications = clients_of(request).notifications
    wanted = pb.GetNotificationRequest(notification_id=notification_id)
    return answer(
        models.notification(
            (await notifications.read(notifications.stub.GetNotification, wanted)).notification
        )
    )
