"""Mail over TLS: servers with and without a trusted certificate, and with and without STARTTLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from functions.notifications.channels.smtp import SmtpChannel, parse_url
from functions.notifications.tests.test_smtp import MAIL, SENDER
from functions.runtime.errors import ServiceError


class MailServer:
    """A mail server; `encrypted` has an entry for each message, True if it came over TLS."""

    def __init__(self) -> None:
        self.encrypted: list[bool] = []

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:
        assert server.transport is not None
        self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        return "250 OK"


def _allow_ada(server: SMTP, session: Any, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=data.login == b"ada" and data.password == b"p@ss", handled=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "mail.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine trust the certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.fixture
async def serve(certificate: Path) -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Start a mail server with implicit TLS, required STARTTLS, or neither; return its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with AsyncExitStack() as stack:

        async def start(mail_server: MailServer, tls: str = "") -> int:
            options: dict[str, Any] = {"authenticator": _allow_ada, "auth_require_tls": tls != "implicit"}
            if tls == "starttls":
                options |= {"tls_context": context, "require_starttls": True}
            server = await asyncio.get_running_loop().create_server(
                lambda: SMTP(mail_server, hostname="test", **options),
                "127.0.0.1",
                0,
                ssl=context if tls == "implicit" else None,
            )
            await stack.enter_async_context(server)
            port: int = server.sockets[0].getsockname()[1]
            return port

        yield start


async def send(url: str, mails: int = 1) -> None:
    channel = SmtpChannel(parse_url(url), SENDER, 5.0)
    try:
        for _ in range(mails):
            await channel.send(MAIL)
    finally:
        await channel.close()


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("tls", "url"),
    [
        ("starttls", "smtp://ada:p%40ss@127.0.0.1:{}?starttls=1"),
        ("starttls", "smtp://ada:p%40ss@127.0.0.1:{}"),  # taken, since it is offered
        ("implicit", "smtps://ada:p%40ss@127.0.0.1:{}"),
    ],
)
async def test_password_and_mail_go_over_tls(serve: Callable[..., Awaitable[int]], tls: str, url: str) -> None:
    mail_server = MailServer()
    await send(url.format(await serve(mail_server, tls)), mails=2)
    assert mail_server.encrypted == [True, True]


@pytest.mark.parametrize(("tls", "url"), [("starttls", "smtp://{}?starttls=1"), ("implicit", "smtps://{}")])
async def test_a_certificate_that_is_not_trusted_gets_no_mail(
    serve: Callable[..., Awaitable[int]], tls: str, url: str
) -> None:
    mail_server = MailServer()
    with pytest.raises(ServiceError) as raised:
        await send(url.format(f"127.0.0.1:{await serve(mail_server, tls)}"))
    assert raised.value.reason == "MAIL_UNAVAILABLE"
    assert mail_server.encrypted == []


async def test_a_server_without_starttls_gets_no_mail_where_it_is_insisted_on(
    serve: Callable[..., Awaitable[int]],
) -> None:
    mail_server = MailServer()
    port = await serve(mail_server)
    with pytest.raises(ServiceError) as raised:
        await send(f"smtp://127.0.0.1:{port}?starttls=1")
    assert raised.value.reason == "MAIL_UNAVAILABLE"
    assert mail_server.encrypted == []
    await send(f"smtp://127.0.0.1:{port}")
    assert mail_server.encrypted == [False]


@pytest.mark.usefixtures("trusted")
async def test_a_wrong_password_leaves_the_message_due(serve: Callable[..., Awaitable[int]]) -> None:
    mail_server = MailServer()
    port = await serve(mail_server, "starttls")
    with pytest.raises(ServiceError) as raised:
        await send(f"smtp://ada:wrong@127.0.0.1:{port}?starttls=1")
    assert raised.value.reason == "MAIL_UNAVAILABLE"
    assert mail_server.encrypted == []
