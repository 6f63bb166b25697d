"""The mailbox: messages that a user reads in the API, and that are sent nowhere."""

from __future__ import annotations

from functions.notifications.channels.port import Mail


class Mailbox:
    """See Channel. A stored message is delivered."""

    name = "mailbox"
    needs_address = False

    async def send(self, mail: Mail) -> None:
        """Do nothing: the message is stored already."""
