"""The composition root of the notifications service."""

from __future__ import annotations

from email.errors import MessageError
from functools import partial
from typing import TYPE_CHECKING

from functions.notifications.channels import Channel, Mailbox
from functions.notifications.clients import Users, UsersPeer
from functions.notifications.desk import Desk
from functions.notifications.settings import Settings
from functions.notifications.store import MAPPINGS
from functions.notifications.subscriptions import subscriptions
from functions.runtime import factories
from functions.runtime.app import Function, Hook, RpcService
from functions.runtime.clock import Clock, SystemClock
from functions.runtime.credentials import secret
from functions.runtime.grpc_client import GrpcClient
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
    """Compose the service; what is passed in takes the place of the real thing."""
    clock = clock or SystemClock()
    channel = channel or open_channel(settings)
    closing: list[Hook] = []
    users = users or _users(settings, clock, closing)
    verifier = verifier or _verifier(settings, clock, closing)
    store = store or factories.open_store(settings, "notifications", MAPPINGS, clock)
    events_secret = secret(settings, "mail_events_secret")
    shows_tokens = settings.shop_env == "development"
    desk = Desk(store, channel, users, clock, shows_tokens, events_secret, settings.unverified_mails_per_day)
    return Function(
        name="notifications",
        settings=settings,
        store=store,
        services=partial(_services, desk),
        subscriptions=subscriptions(desk),
        verifier=verifier,
        clock=clock,
        signer=factories.event_signer(settings, "notifications"),
        signatures=factories.event_verifier(settings, "notifications"),
        on_stop=closing,
    )


def _users(settings: Settings, clock: Clock, closing: list[Hook]) -> Users:
    peer = GrpcClient(
        settings.users_address, factories.service_tokens(settings, "notifications", clock), "users"
    )
    closing.append(peer.close)
    return UsersPeer(peer)


def _verifier(settings: Settings, clock: Clock, closing: list[Hook]) -> TokenVerifier:
    users = GrpcClient(settings.users_address)
    closing.append(users.close)
    return factories.token_verifier(settings, "notifications", factories.remote_keys(users), clock)


def open_channel(settings: Settings) -> Channel:
    """Open the channel that MAIL_CHANNEL and SMTP_URL choose.

    Raises:
        SettingsError: a setting of it cannot be, or nothing would be sent in production.
    """
    production = settings.shop_env == "production"
    smtp_url = secret(settings, "smtp_url")
    if settings.mail_channel == "mailbox" or (settings.mail_channel == "auto" and not smtp_url):
        if production and settings.role != "rpc":  # the rpc role sends nothing
            raise SettingsError("MAIL_CHANNEL: production must send mail: set SMTP_URL, or MAIL_CHANNEL=ses")
        return Mailbox()
    sender = _mailbox("MAIL_FROM", settings.mail_from)
    reply_to = _mailbox("MAIL_REPLY_TO", settings.mail_reply_to) if settings.mail_reply_to else None
    if settings.mail_channel == "ses":
        from functions.notifications.ses import SesChannel  # only where mail goes out by it

        return SesChannel(
            sender,
            settings.mail_timeout,
            settings.ses_configuration_set,
            settings.ses_region,
            settings.ses_endpoint,
            reply_to=reply_to,
        )
    from functions.notifications.smtp import SmtpChannel, parse_url  # only where mail goes out

    return SmtpChannel(parse_url(smtp_url, production=production), sender, settings.mail_timeout, reply_to)


def _mailbox(variable: str, value: str) -> Address:
    from functions.notifications.mime import parse_mailbox  # only where mail goes out

    try:
        return parse_mailbox(value)
    except (ValueError, MessageError):
        raise SettingsError(
            f"{variable}: must be an address, or a name and an address: The Shop <shop@example.com>"
        ) from None


def _services(desk: Desk) -> list[RpcService]:
    from functions.notifications.rpc import ACCESS, Notifications  # gRPC only where its door opens
    from proto.shop.notifications.v1.notifications_pb2_grpc import add_NotificationsServiceServicer_to_server

    name = "shop.notifications.v1.NotificationsService"
    return [RpcService(add_NotificationsServiceServicer_to_server, Notifications(desk), name, ACCESS)]
