"""The composition root of the notifications service."""

from __future__ import annotations

from email.errors import MessageError
from functools import partial
from typing import TYPE_CHECKING

from functions.notifications.channels.feedback import FeedbackService
from functions.notifications.channels.mailbox import Mailbox
from functions.notifications.channels.port import Channel
from functions.notifications.clients import Users, UsersClient
from functions.notifications.sending import MessageSender
from functions.notifications.service import NotificationsService
from functions.notifications.settings import Settings
from functions.notifications.store import MAPPINGS
from functions.notifications.subscriptions import subscriptions
from functions.runtime import factories
from functions.runtime.app import Function, Hook, RpcService
from functions.runtime.clock import Clock, SystemClock
from functions.runtime.credentials import secret
from functions.runtime.settings import SettingsError
from functions.runtime.store.port import Store
from functions.runtime.tokens import TokenVerifier

if TYPE_CHECKING:
    from email.headerregistry import Address


def bootstrap(
    settings: Settings,
    *,
    store: Store | None = None,
    clock: Clock | None = None,
    channel: Channel | None = None,
    users: Users | None = None,
    verifier: TokenVerifier | None = None,
) -> Function:
    """Compose the service. An argument replaces the collaborator that would be built from the settings."""
    clock = clock or SystemClock()
    on_stop: list[Hook] = []
    channel = channel or open_channel(settings, on_stop)
    if users is None:
        address = settings.users_address
        client = factories.service_client(settings, "notifications", "users", address, clock, on_stop)
        users = UsersClient(client)
    verifier = verifier or factories.remote_verifier(settings, "notifications", clock, on_stop)
    store = store or factories.open_store(settings, "notifications", MAPPINGS, clock)
    sender = MessageSender(
        store,
        channel,
        users,
        clock,
        shows_tokens=settings.shop_env == "development",
        unverified_mails_per_day=settings.unverified_mails_per_day,
    )
    notifications = NotificationsService(store, sender, clock)
    feedback = FeedbackService(store, clock, secret=secret(settings, "mail_events_secret"))
    return Function(
        name="notifications",
        settings=settings,
        store=store,
        services=partial(_services, notifications, feedback),
        subscriptions=subscriptions(notifications),
        verifier=verifier,
        clock=clock,
        signer=factories.event_signer(settings, "notifications"),
        signatures=factories.event_verifier(settings, "notifications"),
        on_stop=on_stop,
    )


def open_channel(settings: Settings, on_stop: list[Hook]) -> Channel:
    """Open the channel that MAIL_CHANNEL and SMTP_URL select, and add to `on_stop` what closes it.

    Raises:
        SettingsError: a setting of the channel is not valid, or no mail would be sent in production.
    """
    production = settings.shop_env == "production"
    smtp_url = secret(settings, "smtp_url")
    if settings.role == "rpc":  # this role sends no mail and has no mail settings
        return Mailbox()
    if settings.mail_channel == "mailbox" or (settings.mail_channel == "auto" and not smtp_url):
        if production:
            raise SettingsError("MAIL_CHANNEL: production must send mail: set SMTP_URL, or MAIL_CHANNEL=ses")
        return Mailbox()
    sender = _parse_sender("MAIL_FROM", settings.mail_from)
    reply_to = _parse_sender("MAIL_REPLY_TO", settings.mail_reply_to) if settings.mail_reply_to else None
    if settings.mail_channel == "ses":
        from functions.notifications.channels.ses import SesChannel  # imported only if it is used

        return SesChannel(
            sender,
            settings.mail_timeout,
            settings.ses_configuration_set,
            settings.ses_region,
            settings.ses_endpoint,
            reply_to=reply_to,
        )
    from functions.notifications.channels.smtp import SmtpChannel, parse_url  # imported only if it is used

    channel = SmtpChannel(parse_url(smtp_url, production=production), sender, settings.mail_timeout, reply_to)
    on_stop.append(channel.close)
    return channel


def _parse_sender(variable: str, value: str) -> Address:
    from functions.notifications.channels.mime import parse_mailbox  # imported only if mail is sent

    try:
        return parse_mailbox(value)
    except (ValueError, MessageError):
        raise SettingsError(
            f"{variable}: must be an address, or a name and an address: The Shop <shop@example.com>"
        ) from None


def _services(notifications: NotificationsService, feedback: FeedbackService) -> list[RpcService]:
    # Imported here, so that a process with ROLE=events does not import gRPC.
    from functions.notifications.rpc import ACCESS, NotificationsServicer
    from proto.shop.notifications.v1.notifications_pb2_grpc import add_NotificationsServiceServicer_to_server

    servicer = NotificationsServicer(notifications, feedback)
    name = "shop.notifications.v1.NotificationsService"
    return [RpcService(add_NotificationsServiceServicer_to_server, servicer, name, ACCESS)]
