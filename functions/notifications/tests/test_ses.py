"""Mail through Amazon SES, against moto and against a fake client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, NoCredentialsError
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ses.models import ses_backends

from functions.notifications.bootstrap import open_channel
from functions.notifications.channels.port import MailRefused
from functions.notifications.channels.ses import SesChannel
from functions.notifications.settings import Settings
from functions.notifications.tests.test_smtp import MAIL, SENDER
from functions.runtime.aws import make_client
from functions.runtime.errors import Code, ServiceError

REGION = "eu-central-1"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """moto's SES, in which the shop's address is verified."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        make_client("sesv2", REGION, None).create_email_identity(EmailIdentity=SENDER.addr_spec)
        yield ses_backends[DEFAULT_ACCOUNT_ID][REGION]


class FakeSes:
    """A fake client of SES: each call consumes one of `answers`, and raises it if it is an error."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.sent: list[dict[str, Any]] = []
        self.threads: set[int] = set()
        self.waits: threading.Event | None = None

    def channel(self, seconds: float = 5.0, configuration_set: str = "") -> SesChannel:
        return SesChannel(SENDER, seconds, configuration_set, create_client=lambda *_, **__: self)

    def send_email(self, **parameters: Any) -> dict[str, str]:
        self.threads.add(threading.get_ident())
        if self.waits is not None:
            self.waits.wait(10)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.sent.append(parameters)
        return {"MessageId": "1"}


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "<ada@example.org> is why"}}, "SendEmail")


async def test_a_message_arrives_whole(aws: Any) -> None:
    settings = Settings(mail_channel="ses", mail_from=str(SENDER), ses_region=REGION)
    await open_channel(settings, []).send(MAIL)
    (message,) = aws.sent_messages
    assert message.source == SENDER.addr_spec
    assert "ada@example.org" in message.destinations
    assert "To: Ada Lovelace <ada@example.org>" in message.raw_data
    assert f"<{MAIL.id}@shop.local>" in message.raw_data


async def test_a_sender_that_aws_does_not_know_is_refused(aws: Any) -> None:
    channel = open_channel(Settings(mail_channel="ses", mail_from="who@else.example", ses_region=REGION), [])
    with pytest.raises(MailRefused, match="MESSAGE_REFUSED"):
        await channel.send(MAIL)
    assert aws.sent_messages == []


async def test_mail_carries_what_a_later_bounce_is_found_by() -> None:
    ses = FakeSes()
    await ses.channel(configuration_set="shop").send(MAIL)
    (sent,) = ses.sent
    assert sent["EmailTags"] == [{"Name": "notification_id", "Value": MAIL.id}]
    assert sent["ConfigurationSetName"] == "shop"


async def test_the_event_loop_is_never_blocked() -> None:
    ses = FakeSes()
    channel = ses.channel()
    await asyncio.gather(*(channel.send(MAIL) for _ in range(20)))
    assert len(ses.sent) == 20
    assert threading.get_ident() not in ses.threads


@pytest.mark.parametrize("code", ["MessageRejected", "BadRequestException"])
async def test_a_message_that_ses_will_not_take_is_refused(code: str) -> None:
    with pytest.raises(MailRefused, match="MESSAGE_REFUSED"):
        await FakeSes(refusal(code)).channel().send(MAIL)


@pytest.mark.parametrize(
    "fault",
    [
        refusal("TooManyRequestsException"),
        refusal("SendingPausedException"),
        refusal("AccessDeniedException"),
        NoCredentialsError(),
        ConnectTimeoutError(endpoint_url="https://email.eu-central-1.amazonaws.com"),
    ],
)
async def test_transient_and_configuration_errors_may_be_retried(fault: Exception) -> None:
    channel = FakeSes(fault).channel()
    with pytest.raises(ServiceError) as raised:
        await channel.send(MAIL)
    assert (raised.value.code, raised.value.reason) == (Code.UNAVAILABLE, "MAIL_UNAVAILABLE")
    await channel.send(MAIL)


async def test_a_call_of_ses_ends_at_its_timeout() -> None:
    ses = FakeSes()
    ses.waits = threading.Event()
    with pytest.raises(ServiceError) as raised:
        await ses.channel(seconds=0.05).send(MAIL)
    assert raised.value.reason == "MAIL_UNAVAILABLE"
    ses.waits.set()


async def test_the_circuit_opens_after_five_failures_of_ses() -> None:
    ses = FakeSes(*[refusal("TooManyRequestsException")] * 5)
    channel = ses.channel()
    outcomes = [await asyncio.gather(channel.send(MAIL), return_exceptions=True) for _ in range(6)]
    (refused,) = outcomes[-1]
    assert isinstance(refused, ServiceError)
    assert refused.retry_after is not None
    assert refused.retry_after > 10
    assert (ses.answers, ses.sent) == ([], [])


async def test_nothing_about_the_person_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="shop")
    ses = FakeSes(refusal("MessageRejected"), refusal("TooManyRequestsException"))
    channel = ses.channel()
    for _ in range(3):
        (outcome,) = await asyncio.gather(channel.send(MAIL), return_exceptions=True)
        assert "ada" not in repr(outcome)
    assert "ada" not in caplog.text


async def test_without_a_server_at_the_endpoint_the_message_stays_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    settings = Settings(mail_channel="ses", ses_endpoint="http://127.0.0.1:1", mail_timeout=0.5)
    with pytest.raises(ServiceError) as raised:
        await open_channel(settings, []).send(MAIL)
    assert raised.value.reason == "MAIL_UNAVAILABLE"
