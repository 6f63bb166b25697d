"""A mail server that accepts and counts mail, and refuses it for some addresses as real servers do."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope

_CODE = re.compile(r"^    (\S+)\s*$", re.MULTILINE)
BOUNCING, GREYLISTED = "bouncing.", "greylisted."


class MailServer:
    """The server. `taken` counts messages by notification id; `codes` has the last code by address and subject.

    Mail to `bouncing.*` is always refused, mail to `greylisted.*` the first time.
    """

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.codes: dict[tuple[str, str], str] = {}
        self.url = ""
        self._seen: set[str] = set()

    async def handle_RCPT(
        self, server: SMTP, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Return whether mail for this address is accepted (a hook of aiosmtpd)."""
        if address.startswith(BOUNCING):
            return "550 5.1.1 no such user"
        if address.startswith(GREYLISTED) and address not in self._seen:
            self._seen.add(address)
            return "451 4.7.1 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:
        """Receive a message (a hook of aiosmtpd)."""
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=default)
        self.taken[str(message["Message-ID"]).strip("<>").partition("@")[0]] += 1
        text = message.get_body(("plain",))
        assert text is not None
        if code := _CODE.search(text.get_content()):
            self.codes[envelope.rcpt_tos[0], str(message["Subject"])] = code[1]
        return "250 OK"


@asynccontextmanager
async def mail_server() -> AsyncIterator[MailServer]:
    """Run a mail server on a free port."""
    mail = MailServer()
    serving = await asyncio.get_running_loop().create_server(
        lambda: SMTP(mail, hostname="test", enable_SMTPUTF8=True), "127.0.0.1", 0
    )
    mail.url = f"smtp://127.0.0.1:{serving.sockets[0].getsockname()[1]}?starttls=0"
    try:
        yield mail
    finally:
        serving.close()
        await serving.wait_closed()
