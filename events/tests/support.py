"""What tests of events share: a subscriber that records, event headers, service tokens, waiting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from events.asgi import Receive, Scope, Send, read_body, respond
from events.http_server import serving
from events.service_keys import PrivateKey, ServiceKeys
from events.service_tokens import DEAD_LETTERS, Callers

GATEWAY = PrivateKey.generate("gateway")
OTHER = PrivateKey.generate("orders")
KNOWN = ServiceKeys({}).with_key("gateway", GATEWAY.public).with_key("orders", OTHER.public)
CALLERS = Callers(lambda: KNOWN, "https://shop.local", DEAD_LETTERS, ("gateway",), time.time)


def service_token(key: PrivateKey = GATEWAY, kid: str = "", **changed: Any) -> str:
    """As the gateway shows it to the dead-letter sink."""
    claims = {"iss": "https://shop.local", "aud": DEAD_LETTERS, "sub": "gateway", "typ": "service"}
    now = int(time.time())
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    given = {**claims, "iat": now, "exp": now + 300, **changed}
    return jwt.encode(given, private, "EdDSA", {"kid": kid or key.key_id})


class ReceivedRequest(NamedTuple):
    headers: dict[str, str]
    body: bytes
    path: str

    @property
    def id(self) -> str:
        return self.headers["ce-id"]


class Answer(NamedTuple):
    status: int = 204
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""


@dataclass
class Subscriber:
    """Answers what `answers` says, by number of the request; 204 after the last of them."""

    answers: Sequence[Answer] = ()
    gate: asyncio.Event | None = None
    received: list[ReceivedRequest] = field(default_factory=list)
    url: str = ""

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        if self.gate is not None:
            self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        number = len(self.received)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.received.append(ReceivedRequest(headers, body, scope["path"]))
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers[number] if number < len(self.answers) else Answer()
        await respond(send, answer.status, answer.body, headers=answer.headers)

    @property
    def ids(self) -> list[str]:
        return [delivery.id for delivery in self.received]


@contextlib.asynccontextmanager
async def subscribed(*answers: Answer, gate: asyncio.Event | None = None, port: int = 0) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber(answers, gate)
    async with serving(subscriber, port=port) as url:
        subscriber.url = url
        yield subscriber


def headers(event_id: str = "1", **attributes: str) -> dict[str, str]:
    known = {"id": event_id, "source": "/orders", "type": "shop.order.placed.v1", "specversion": "1.0"}
    given = {f"ce-{name}": value for name, value in {**known, **attributes}.items() if value}
    return {"content-type": "application/json", **given}


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return once it holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while True:
        if condition():
            return
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def ready(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                if (await http.get("/healthz/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)
