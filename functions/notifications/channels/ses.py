"""Mail through API v2 of Amazon SES, which is called with boto3."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from functions.notifications.channels.mime import compose
from functions.notifications.channels.port import NOTIFICATION_TAG, Mail, MailRefused, mail_unavailable
from functions.runtime.aws import make_client
from functions.runtime.circuit_breaker import CircuitBreaker
from functions.runtime.errors import ServiceError

if TYPE_CHECKING:
    from email.headerregistry import Address

log = logging.getLogger("shop.notifications")

MAX_THREADS = 8
ATTEMPTS = 3
# These errors are caused by the message or the address. All other errors (throttling, a paused account, a missing role)
# are transient or caused by the configuration, so the message is retried.
_REFUSALS = frozenset({"MessageRejected", "BadRequestException"})


class SesChannel:
    """See Channel. Mail comes from `sender`, replies go to `reply_to`, and sending one mail takes `seconds` at most.

    Each mail has its notification's id as a tag. A later report of a bounce contains the tag (see feedback.py). SES
    sends such reports if `configuration_set` is given.
    """

    name = "ses"
    needs_address = True

    def __init__(
        self,
        sender: Address,
        seconds: float,
        configuration_set: str = "",
        region: str = "",
        endpoint: str = "",
        *,
        reply_to: Address | None = None,
        create_client: Callable[..., Any] = make_client,
    ) -> None:
        self._sender = sender
        self._reply_to = reply_to
        self._seconds = seconds
        self._options = {"ConfigurationSetName": configuration_set} if configuration_set else {}
        self._create_client = partial(
            create_client,
            "sesv2",
            region or None,
            endpoint or None,
            connect_timeout=min(3.0, seconds),
            read_timeout=seconds,
            max_pool_connections=MAX_THREADS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},  # with jitter
        )
        self._client: Any = None
        self._connecting = asyncio.Lock()
        # The channel has its own pool, so that a slow SES takes no thread from the store. The threads end with the
        # process.
        self._threads = ThreadPoolExecutor(MAX_THREADS, "ses")
        self._breaker = CircuitBreaker("ses")

    async def send(self, mail: Mail) -> None:
        message = compose(mail, self._sender, self._reply_to)
        (recipient,) = message["To"].addresses
        if not recipient.addr_spec.isascii():
            raise MailRefused("NOT_SUPPORTED_BY_SERVER")  # SES has no SMTPUTF8
        parameters = {
            "FromEmailAddress": self._sender.addr_spec,
            "Destination": {"ToAddresses": [recipient.addr_spec]},
            "Content": {"Raw": {"Data": message.as_bytes()}},
            "EmailTags": [{"Name": NOTIFICATION_TAG, "Value": mail.id}],
            **self._options,
        }
        await self._breaker.call(lambda: self._send_in_time(parameters))

    async def _send_in_time(self, parameters: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                async with self._connecting:
                    if self._client is None:
                        self._client = await self._in_thread(self._create_client)
                await self._in_thread(partial(self._client.send_email, **parameters))
        except TimeoutError:
            raise _unavailable("timeout") from None

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _invoke, work)


def _invoke(work: Callable[[], Any]) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError  # imported only if SES is used

    try:
        return work()
    except ClientError as error:  # its message may contain the address, so drop it
        code = error.response.get("Error", {}).get("Code", "")
        if code in _REFUSALS:
            raise MailRefused("MESSAGE_REFUSED") from None
        raise _unavailable(code) from None
    except BotoCoreError as error:  # for example no credentials, region or connection
        raise _unavailable(type(error).__name__) from None


def _unavailable(what: str) -> ServiceError:
    log.warning("ses_unavailable", extra={"error": what})
    return mail_unavailable()
