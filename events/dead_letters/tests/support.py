"""A sink on a free port, and what it is sent."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from events.cloudevent import CloudEvent
from events.dead_letters.app import DeadLetters, ReplayFailed
from events.http_server import serving
from events.tests.support import CALLERS, headers, service_token

ERROR = {
    "knativeerrordest": "http://orders/",
    "knativeerrorcode": "422",
    "knativeerrordata": base64.b64encode(b"no such order").decode(),
}


@dataclass
class Sink:
    http: httpx.AsyncClient
    now: float = 1_700_000_000.0
    replayed: list[tuple[CloudEvent, str | None]] = field(default_factory=list)
    refuse: bool = False
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    async def replay(self, event: CloudEvent, to: str | None) -> None:
        if self.refuse:
            raise ReplayFailed("it is closed")
        self.replayed.append((event, to))

    async def put(self, event_id: str = "1", **attributes: str) -> None:
        given = headers(event_id, knativebrokerttl="254", **{**ERROR, **attributes})
        given |= {"kn-trigger": "shop/t", "kn-broker": "shop/default", "kn-attempts": "6"}
        answer = await self.http.post("/", headers=given, content=b'{"a": 1}')
        assert answer.status_code == 204

    async def entries(self, **query: Any) -> list[dict[str, Any]]:
        answer = await self.http.get("/entries", params=query)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items


@contextlib.asynccontextmanager
async def sink(data: Path, now: float = 1_700_000_000.0) -> AsyncIterator[Sink]:
    shown = {"authorization": f"Bearer {service_token()}"}
    async with httpx.AsyncClient(timeout=10, headers=shown) as http:
        it = Sink(http)
        it.now = now
        app = DeadLetters(
            data,
            replay=it.replay,
            registry=it.registry,
            triggers=["shop/t", "shop/products-events"],
            callers=CALLERS,
            clock=lambda: it.now,
        )
        async with serving(app) as url:
            http.base_url = httpx.URL(url)
            yield it
