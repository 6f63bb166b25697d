"""Mail over SMTP, against a real server on a free port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope

from functions.notifications import rendering
from functions.notifications.bootstrap import open_channel
from functions.notifications.channels.mailbox import Mailbox
from functions.notifications.channels.mime import compose, parse_mailbox
from functions.notifications.channels.port import Bounced, Mail, MailRefused
from functions.notifications.channels.smtp import MAX_CONNECTIONS, SmtpChannel, SmtpServer, parse_url
from functions.notifications.settings import Settings
from functions.notifications.tests.shop import ORDER, Shop
from functions.notifications.tests.test_messages import CONFIRMED
from functions.runtime.app import Hook
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.settings import SettingsError, load

SENDER = parse_mailbox("The Shop <shop@shop.local>")
MAIL = Mail("ntf_" + "a" * 32, "Grüße", "Hello Ada,\n", ManualClock().now(), "ada@example.org", "Ada Lovelace")


def test_the_settings_do_not_show_the_password_of_the_mail_server() -> None:
    assert "opensesame" not in repr(Settings(smtp_url="smtp://shop:opensesame@mail.example.org"))


def text_of(message: EmailMessage) -> str:
    """Return the plain text part."""
    part = message.get_body(("plain",))
    assert part is not None
    content = part.get_content()
    assert isinstance(content, str)
    return content


class MailServer:
    """A mail server: its answers to RCPT and DATA, and what it received.

    If `ends`, it takes the message and closes the connection without an answer.
    """

    def __init__(self) -> None:
        self.recipient, self.data, self.delay = "250 OK", "250 OK", 0.0
        self.mails_per_connection = 100
        self.ends = False
        self.connections: list[Connection] = []
        self.channels: list[SmtpChannel] = []
        self.received: list[EmailMessage] = []
        self.senders: list[str | None] = []
        self.recipients: list[str] = []
        self.port = 0

    async def handle_MAIL(
        self, server: Connection, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if server.mails == self.mails_per_connection:
            return "421 4.7.0 enough on this connection"
        server.mails += 1
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient

    async def handle_DATA(self, server: Connection, session: Any, envelope: Envelope) -> str:
        await asyncio.sleep(self.delay)
        if self.data.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            message = message_from_bytes(content, policy=default)
            assert isinstance(message, EmailMessage)
            self.received.append(message)
            self.senders.append(envelope.mail_from)
            self.recipients += envelope.rcpt_tos
        if self.ends:
            server.end()
        return self.data

    def channel(
        self, seconds: float = 5.0, user: str | None = None, password: str | None = None, idle_seconds: float = 30.0
    ) -> SmtpChannel:
        server = SmtpServer("127.0.0.1", self.port, False, False, user, password)
        self.channels.append(SmtpChannel(server, SENDER, seconds, idle_seconds=idle_seconds))
        return self.channels[-1]


class Connection(SMTP):
    """A connection to a mail server, with the number of mails that began on it."""

    def __init__(self, mail_server: MailServer) -> None:
        super().__init__(mail_server, hostname="test", authenticator=_allow_ada, auth_require_tls=False)
        self.mails = 0
        self.lost = asyncio.Event()
        mail_server.connections.append(self)

    def end(self) -> None:
        """Close the connection without a word."""
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.lost.set()


def _allow_ada(server: SMTP, session: Any, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=data.login == b"ada" and data.password == b"p@ss", handled=False)


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    mail_server = MailServer()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(mail_server), "127.0.0.1", 0)
    mail_server.port = server.sockets[0].getsockname()[1]
    yield mail_server
    for channel in mail_server.channels:
        await channel.close()
    server.close()
    await server.wait_closed()


async def test_a_message_arrives_whole(mail_server: MailServer) -> None:
    await mail_server.channel().send(MAIL)
    (message,) = mail_server.received
    assert message["To"] == "Ada Lovelace <ada@example.org>"
    assert (message["From"], message["Subject"]) == ("The Shop <shop@shop.local>", "Grüße")
    assert message["Message-ID"] == f"<{MAIL.id}@shop.local>"
    assert message["Date"].datetime == MAIL.at
    assert text_of(message).splitlines() == ["Hello Ada,"]


async def test_many_messages_at_once_all_arrive(mail_server: MailServer) -> None:
    channel = mail_server.channel()
    await asyncio.gather(*(channel.send(MAIL) for _ in range(20)))
    assert len(mail_server.received) == 20
    assert len(mail_server.connections) == MAX_CONNECTIONS


async def test_mails_share_a_connection_which_closes_with_the_channel(mail_server: MailServer) -> None:
    channel = mail_server.channel()
    for _ in range(3):
        await channel.send(MAIL)
    (connection,) = mail_server.connections
    assert connection.mails == len(mail_server.received) == 3
    await channel.close()
    await connection.lost.wait()


async def test_an_idle_connection_closes(mail_server: MailServer) -> None:
    channel = mail_server.channel(idle_seconds=0.01)
    await asyncio.gather(channel.send(MAIL), channel.send(MAIL))
    await asyncio.gather(*(connection.lost.wait() for connection in mail_server.connections))
    await channel.send(MAIL)
    assert len(mail_server.received) == 3


async def test_a_connection_that_the_server_ends_costs_no_mail(mail_server: MailServer) -> None:
    channel = mail_server.channel()
    mail_server.mails_per_connection = 1
    await channel.send(MAIL)
    await channel.send(MAIL)  # the server says 421
    mail_server.connections[-1].end()  # without a word
    await channel.send(MAIL)
    assert [connection.mails for connection in mail_server.connections] == [1, 1, 1]
    assert len(mail_server.received) == 3


async def test_a_mail_that_the_server_may_have_taken_is_not_sent_again_at_once(mail_server: MailServer) -> None:
    channel = mail_server.channel()
    await channel.send(MAIL)
    mail_server.ends = True
    with pytest.raises(ServiceError) as raised:
        await channel.send(MAIL)
    assert raised.value.reason == "MAIL_UNAVAILABLE"
    assert len(mail_server.received) == 2
    assert len(mail_server.connections) == 1


@pytest.mark.parametrize(("recipient", "data"), [("550 no such user", "250 OK"), ("250 OK", "554 5.6.0 not like this")])
async def test_a_refused_mail_is_not_in_the_way_of_the_next(mail_server: MailServer, recipient: str, data: str) -> None:
    channel = mail_server.channel()
    mail_server.recipient, mail_server.data = recipient, data
    with pytest.raises((Bounced, MailRefused)):
        await channel.send(MAIL)
    mail_server.recipient = mail_server.data = "250 OK"
    await channel.send(MAIL)
    assert len(mail_server.received) == 1


@pytest.mark.parametrize("answer", ["550 5.1.1 no such user", "550 no such user", "553 5.1.3 bad address"])
async def test_a_refused_recipient_is_a_hard_bounce(mail_server: MailServer, answer: str) -> None:
    mail_server.recipient = answer
    with pytest.raises(Bounced):
        await mail_server.channel().send(MAIL)


@pytest.mark.parametrize("answer", ["550 5.7.1 looks like spam", "552 5.2.2 mailbox full"])
async def test_a_refusal_that_does_not_blame_the_address_is_no_bounce(mail_server: MailServer, answer: str) -> None:
    mail_server.recipient = answer
    with pytest.raises(MailRefused):
        await mail_server.channel().send(MAIL)


async def test_a_refused_text_is_no_bounce(mail_server: MailServer) -> None:
    mail_server.data = "554 5.6.0 not like this"
    with pytest.raises(MailRefused):
        await mail_server.channel().send(MAIL)


@pytest.mark.parametrize(("recipient", "data"), [("450 4.2.1 later", "250 OK"), ("250 OK", "451 later")])
async def test_a_passing_refusal_may_be_repeated(mail_server: MailServer, recipient: str, data: str) -> None:
    mail_server.recipient, mail_server.data = recipient, data
    with pytest.raises(ServiceError) as raised:
        await mail_server.channel().send(MAIL)
    assert (raised.value.code, raised.value.reason) == (Code.UNAVAILABLE, "MAIL_UNAVAILABLE")


async def test_a_server_that_is_away_or_slow_may_be_tried_again(mail_server: MailServer) -> None:
    mail_server.delay = 60
    away = SmtpChannel(SmtpServer("127.0.0.1", 1, False, False), SENDER, 5)
    for channel in (mail_server.channel(seconds=0.2), away):
        with pytest.raises(ServiceError) as raised:
            await channel.send(MAIL)
        assert raised.value.code is Code.UNAVAILABLE


async def test_the_password_of_the_url_is_used_and_a_wrong_one_loses_nothing(mail_server: MailServer) -> None:
    await mail_server.channel(user="ada", password="p@ss").send(MAIL)
    assert len(mail_server.received) == 1
    with pytest.raises(ServiceError):
        await mail_server.channel(user="ada", password="wrong").send(MAIL)


async def test_nothing_about_the_person_is_logged(mail_server: MailServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="shop")
    for mail_server.recipient in (
        "550 5.1.1 <ada@example.org> unknown",
        "450 <ada@example.org> later",
        "250 OK",
    ):
        (outcome,) = await asyncio.gather(mail_server.channel().send(MAIL), return_exceptions=True)
        assert "ada" not in repr(outcome)
    assert "ada" not in caplog.text
    assert "ada" not in repr(MAIL).lower()


async def test_an_order_is_confirmed_by_mail_and_a_repetition_has_the_same_message_id(
    mail_server: MailServer,
) -> None:
    shop = Shop(mail_server.channel())
    await shop.receive(CONFIRMED)
    (message,) = mail_server.received
    assert ORDER in text_of(message)
    assert message["Message-ID"] == f"<{(await shop.message()).id}@shop.local>"


@pytest.mark.parametrize(
    "address", ["", "ada", "ada@", "a da@example.org", "äda@example.org", "ada@example.org\r\nBcc: eve@example.org"]
)
def test_an_address_that_no_header_can_hold_is_refused(address: str) -> None:
    with pytest.raises(MailRefused):
        compose(Mail(MAIL.id, "s", "b", MAIL.at, address), SENDER)


def test_a_name_cannot_add_a_header() -> None:
    message = compose(Mail(MAIL.id, "s", "b", MAIL.at, "ada@example.org", "Ada\r\nBcc: eve@example.org"), SENDER)
    assert message["Bcc"] is None
    assert b"\r\nBcc:" not in message.as_bytes()


@pytest.mark.parametrize(
    ("name", "address", "subject"),
    [
        ("Ada " * 25, "a" * 64 + "@" + "b" * 60 + ".example.org", "word " * 60),
        ("ü" * 100, "ada@example.org", "ß" * 300),
    ],
)
async def test_every_line_on_the_wire_is_within_the_standard(name: str, address: str, subject: str) -> None:
    text = "word " * 500 + "ä" * 2000
    mail = Mail(MAIL.id, subject, text, MAIL.at, address, name, rendering.html(subject, text))
    wire = compose(mail, parse_mailbox(f"{'Shop ' * 20}<shop@{'c' * 60}.example.org>")).as_bytes()
    assert wire.isascii()
    # RFC 5322, 2.1.1: at most 998 octets, and 78 where that can be. One address may be longer than 78.
    head, _, body = wire.partition(b"\r\n\r\n")
    assert max(map(len, head.split(b"\r\n"))) <= 998
    assert max(map(len, body.split(b"\r\n"))) <= 78
    assert b"\n" not in wire.replace(b"\r\n", b"")
    message = message_from_bytes(wire, policy=default)
    assert isinstance(message, EmailMessage)
    assert text_of(message).strip() == text.strip()
    assert message["To"].addresses[0].addr_spec == address


async def test_a_mail_has_the_same_words_as_text_and_as_html(mail_server: MailServer) -> None:
    shop = Shop(mail_server.channel())
    await shop.receive(CONFIRMED)
    (message,) = mail_server.received
    assert message.get_content_type() == "multipart/alternative"
    part = message.get_body(("html",))
    assert part is not None
    html = part.get_content()
    assert ORDER in html
    assert "Hello Ada," in html
    assert "width=device-width" in html


async def test_the_text_arrives_as_it_was_written(mail_server: MailServer) -> None:
    text = ".\n..\nFrom here\nto there \n\ttab = \t\n\n--\nÄ\n"
    await mail_server.channel().send(Mail(MAIL.id, "s", text, MAIL.at, "ada@example.org", html=f"<p>{text}</p>\n"))
    (message,) = mail_server.received
    html = message.get_body(("html",))
    assert html is not None
    assert text_of(message).replace("\r\n", "\n") == text
    assert html.get_content().replace("\r\n", "\n") == f"<p>{text}</p>\n"


async def test_the_sender_may_have_a_name_and_answers_go_where_the_settings_say(
    mail_server: MailServer,
) -> None:
    variables = {
        "SMTP_URL": f"smtp://127.0.0.1:{mail_server.port}",
        "MAIL_FROM": "Müller & Söhne <shop@müller.example>",
        "MAIL_REPLY_TO": '"Help, always" <help@example.org>',
    }
    on_stop: list[Hook] = []
    await open_channel(load(Settings, variables), on_stop).send(MAIL)
    for hook in on_stop:
        await hook()
    (message,) = mail_server.received
    assert message["From"].addresses[0].display_name == "Müller & Söhne"
    assert message["From"].addresses[0].addr_spec == "shop@xn--mller-kva.example"
    assert message["Reply-To"].addresses[0].addr_spec == "help@example.org"
    assert message["Message-ID"] == f"<{MAIL.id}@xn--mller-kva.example>"
    assert mail_server.senders == ["shop@xn--mller-kva.example"]


async def test_mail_to_an_international_domain_goes_to_that_domain_and_no_other(
    mail_server: MailServer,
) -> None:
    await mail_server.channel().send(Mail(MAIL.id, "s", "b", MAIL.at, "max@fußball.example"))
    (message,) = mail_server.received
    assert message["To"] == "max@xn--fuball-cta.example"
    assert mail_server.recipients == ["max@xn--fuball-cta.example"]


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://localhost", SmtpServer("localhost", 25, False, None)),
        ("smtp://a%40b:p%2Fw@mail:2525", SmtpServer("mail", 2525, False, None, "a@b", "p/w")),
        ("smtp://mail?starttls=1", SmtpServer("mail", 587, False, True)),
        ("smtp://mail?starttls=0", SmtpServer("mail", 25, False, False)),
        ("smtps://mail", SmtpServer("mail", 465, True, None)),
    ],
)
def test_a_url_names_a_server(url: str, server: SmtpServer) -> None:
    assert parse_url(url) == server


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail", SmtpServer("mail", 587, False, True)),
        ("smtp://mail:25", SmtpServer("mail", 25, False, True)),
        ("smtps://mail", SmtpServer("mail", 465, True, None)),
        ("smtps://mail?starttls=0", SmtpServer("mail", 465, True, False)),
    ],
)
def test_production_insists_on_tls(url: str, server: SmtpServer) -> None:
    assert parse_url(url, production=True) == server


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SMTP_URL": "smtp://mail?starttls=0"}, "SMTP_URL: starttls=0 is refused"),
        ({"SMTP_URL": "smtp://shop:changeme@mail"}, "SMTP_URL: the password is an example"),
        ({"SMTP_URL": "smtp://shop:short@mail"}, "SMTP_URL: the password is too short"),
        ({}, "MAIL_CHANNEL: production must send mail"),
        ({"MAIL_CHANNEL": "mailbox"}, "MAIL_CHANNEL: production must send mail"),
    ],
)
def test_production_refuses_a_channel_that_is_open_or_sends_nothing(variables: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as raised:
        open_channel(load(Settings, {"SHOP_ENV": "production", "ROLE": "events", **variables}), [])
    assert "changeme" not in str(raised.value)


@pytest.mark.parametrize("variables", [{}, {"MAIL_CHANNEL": "smtp"}, {"MAIL_CHANNEL": "ses"}])
def test_the_role_that_sends_nothing_needs_no_channel_in_production(variables: dict[str, str]) -> None:
    assert open_channel(load(Settings, {"SHOP_ENV": "production", "ROLE": "rpc", **variables}), []).name == "mailbox"


def test_the_url_of_the_mail_server_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("smtps://mail\n")
    assert open_channel(load(Settings, {"SMTP_URL_FILE": str(tmp_path / "url")}), []).name == "smtp"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail:25",
        "http://ada:secret@mail",
        "smtp://",
        "smtp://ada:secret@mail:port",
        "smtp://m?starttls=x",
    ],
)
def test_a_url_that_names_none_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="SMTP_URL: must be") as raised:
        parse_url(url)
    assert "secret" not in str(raised.value)


def test_settings_choose_the_channel() -> None:
    assert isinstance(open_channel(load(Settings, {}), []), Mailbox)
    assert open_channel(load(Settings, {"SMTP_URL": "smtp://mail"}), []).name == "smtp"
    assert open_channel(load(Settings, {"SMTP_URL": "smtp://m", "MAIL_CHANNEL": "ses"}), []).name == "ses"
    assert open_channel(load(Settings, {"SMTP_URL": "smtp://m", "MAIL_CHANNEL": "mailbox"}), []).name == "mailbox"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"MAIL_CHANNEL": "smtp"}, "SMTP_URL: must be"),
        ({"SMTP_URL": "smtp://m", "MAIL_FROM": "nobody"}, "MAIL_FROM: "),
        ({"SMTP_URL": "smtp://m", "MAIL_FROM": "a@b.example, c@d.example"}, "MAIL_FROM: "),
        ({"SMTP_URL": "smtp://m", "MAIL_FROM": "Shop\r\nBcc: eve@example.org <a@b.example>"}, "MAIL_FROM: "),
        ({"SMTP_URL": "smtp://m", "MAIL_REPLY_TO": "nobody"}, "MAIL_REPLY_TO: "),
        ({"MAIL_TIMEOUT": "60"}, "MAIL_TIMEOUT: "),
    ],
)
def test_invalid_settings_are_refused_by_name(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        open_channel(load(Settings, environ), [])
