"""Requests and responses about notifications."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.models.common import Body, Bool, Moment, NextCursor, Version, identifier, view
from proto.shop.notifications.v1 import notifications_pb2 as pb

NotificationStatus = TypeAliasType(
    "NotificationStatus",
    Annotated[
        Literal["PENDING", "SENT", "FAILED", "BOUNCED", "SUPPRESSED"], Field(description="Status of the message.")
    ],
)

Template = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", examples=["order_shipped"])]


class PreferencesIn(Body):
    """Changes of notification preferences; absent fields stay unchanged."""

    email_enabled: Annotated[Bool | None, Field(description="False turns off all e-mail.", examples=[True])] = None
    muted_templates: Annotated[
        list[Template] | None, Field(max_length=50, description="Templates that the person does not want.")
    ] = None


class NotificationLine(TypedDict):
    """A message, without its text."""

    id: Annotated[str, identifier("ntf", "The message")]
    channel: Annotated[str, Field(description="`mailbox`, `smtp` or `ses`.", examples=["mailbox"])]
    template: Annotated[str, Field(description="The message's template.", examples=["order_confirmed"])]
    subject: Annotated[str, Field(description="The subject line.", examples=["Your order is confirmed"])]
    status: NotificationStatus
    order_id: Annotated[
        str | None,
        Field(description="The order that it is about, if any.", examples=["ord_0190b5a4c1de7c0f8a31d94e5b7c2f60"]),
    ]
    created_at: Moment
    sent_at: Annotated[
        datetime | None, Field(description="When the channel accepted it.", examples=["2030-01-01T12:00:01.000001Z"])
    ]


class Notification(NotificationLine):
    """A message with its text."""

    body: Annotated[str, Field(description="The text.", examples=["Thank you for your order."])]


class NotificationPage(TypedDict):
    """Messages without their texts, newest first."""

    items: list[NotificationLine]
    next_cursor: NextCursor


class Preferences(TypedDict):
    """The notification preferences of a person."""

    email_enabled: Annotated[bool, Field(description="False turns off all e-mail.", examples=[True])]
    muted_templates: Annotated[
        list[str], Field(description="Templates that the person does not want.", examples=[["order_shipped"]])
    ]
    version: Version


def notification_line(message: pb.Notification) -> NotificationLine:
    """Return a message without its text, as a list shows it."""
    return view(NotificationLine, message, order_id=message.order_id or None)


def notification(message: pb.Notification) -> Notification:
    """Return a message with its text."""
    return view(Notification, message, order_id=message.order_id or None)
