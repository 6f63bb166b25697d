"""The composition root of the notifications service."""

from __future__ import annotations

from functools import partial

from functions.notifications.channels import Channel, Mailbox
from functions.notifications.desk import Desk
from functions.notifications.peers import Users, UsersPeer
from functions.notifications.settings import Settings
from functions.notifications.store import KINDS
from functions.notifications.subscriptions import subscriptions
from functions.runtime import wiring
from functions.runtime.app import Function, Hook, Service
from functions.runtime.clock import Clock, SystemClock
from functions.runtime.credentials import secret
from functions.runtime.peers import Peer
from functions.runtime.store.port import Store
from functions.runtime.tokens import TokenVerifier


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
    store = store or wiring.open_store(settings, "notifications", KINDS, clock)
    events_secret = secret(settings, "mail_events_secret")
    shows_tokens = settings.shop_env == "development"
    desk = Desk(store, channel, users, clock, shows_tokens, events_secret)
    return Function(
        name="notifications",
        settings=settings,
        store=store,
        services=partial(_services, desk),
        subscriptions=subscriptions(desk),
        verifier=verifier,
        clock=clock,
        on_stop=closing,
    )


def _users(settings: Settings, clock: Clock, closing: list[Hook]) -> Users:
    peer = Peer(settings.users_address, wiring.service_tokens(settings, "notifications", clock))
    closing.append(peer.close)
    return UsersPeer(peer)


def _verifier(settings: Settings, clock: Clock, closing: list[Hook]) -> TokenVerifier:
    users = Peer(settings.users_address)
    closing.append(users.close)
    return wiring.token_verifier(settings, wiring.remote_jwks(users), clock)


def open_channel(settings: Settings) -> Channel:
    """The channel that MAIL_CHANNEL and SMTP_URL choose; raises SettingsError for one that cannot be."""
    if settings.mail_channel == "ses":
        from functions.notifications.ses import SesChannel  # only where mail goes out by it

        return SesChannel(
            settings.mail_from,
            settings.mail_timeout,
            settings.ses_configuration_set,
            settings.ses_region,
            settings.ses_endpoint,
        )
    if settings.mail_channel == "mailbox" or (settings.mail_channel == "auto" and not settings.smtp_url):
        return Mailbox()
    from functions.notifications.smtp import SmtpChannel, parse_url  # only where mail goes out

    return SmtpChannel(parse_url(settings.smtp_url), settings.mail_from, settings.mail_timeout)


def _services(desk: Desk) -> list[Service]:
    from functions.notifications.rpc import Notifications  # gRPC only where its door opens
    from proto.notifications.v1.notifications_pb2_grpc import add_NotificationsServicer_to_server

    # Amazon has no token of ours: it shows a secret instead.
    public = frozenset({"ReceiveMailEvent"})
    name = "shop.notifications.v1.Notifications"
    return [Service(add_NotificationsServicer_to_server, Notifications(desk), name, public)]
