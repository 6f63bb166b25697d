"""What the use cases of this domain work with, handed over as one argument."""

from __future__ import annotations

from dataclasses import dataclass, field

from functions.notifications.channels import Channel
from functions.notifications.clients import Users
from functions.runtime.clock import Clock
from functions.runtime.store.port import Store


@dataclass(frozen=True)
class Desk:
    """`channel` is the one that messages go out by; each keeps the name of its own.

    `shows_tokens`: a mailbox, which sends nothing, may keep the token that a mail would have carried; for development.
    `mail_events_secret` is what those show who report what became of mail; empty: nobody does.
    An address that nobody has verified gets at most `unverified_mails_per_day` mails in 24 hours, codes aside.
    """

    store: Store
    channel: Channel
    users: Users
    clock: Clock
    shows_tokens: bool = False
    mail_events_secret: str = field(default="", repr=False)
    unverified_mails_per_day: int = 10
