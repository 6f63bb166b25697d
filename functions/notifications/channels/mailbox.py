"""The mailbox channel. A user reads its messages in the API; they are not sent."""

from __future__ import annotations

from functions.notifications.channels.port import Mail


class Mailbox:
    """See Channel. A message counts as delivered when it is stored."""

    name = "mailbox"
    needs_address = False

    async def send(self, mail: Mail) -> None:
        """Do nothing, because the message is stored already."""
