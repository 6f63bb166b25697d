"""Every part restarted, one after the other, under load: nobody notices."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from knative.local.demo.shop import ADDRESS, Shop
from tests.crash.mail import MailServer
from tests.crash.platform import Mortal, mortal
from tests.crash.story import Round, begin
from tests.e2e.platform import given

PER_SECOND = 50
# A machine under load may take longer to start a part than a request may usually take.
PATIENT = {"DEADLINE_SECONDS": "30"}


class Load:
    """Requests at a steady pace, whatever became of those before; none is repeated. `answers` counts statuses."""

    def __init__(self, today: Round) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self.placed: list[str] = []
        self._today = today
        self._headers = {"authorization": f"Bearer {today.buyer.tokens['access_token']}"}
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Ask until told to stop, and wait for all answers."""
        loop = asyncio.get_running_loop()
        timeout = aiohttp.ClientTimeout(total=60)
        async with (
            aiohttp.ClientSession(self._today.shop.base_url, headers=self._headers, timeout=timeout) as session,
            asyncio.TaskGroup() as asked,
        ):
            started, number = loop.time(), 0
            while not self._stop.is_set():
                asked.create_task(self._ask(session, number))
                number += 1
                await asyncio.sleep(max(0.0, started + number / PER_SECOND - loop.time()))

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        method, path, how = self._request(number)
        try:
            async with session.request(method, path, **how) as answer:
                body = await answer.json()
                self.answers[f"{method} {answer.status}"] += 1
                if answer.status >= 300:
                    self.failures.append(f"{method} {path}: {answer.status} {body}")
                elif method == "POST":
                    self.placed.append(body["id"])
        except (aiohttp.ClientError, OSError) as error:
            self.failures.append(f"{method} {path}: {error!r}")

    def _request(self, number: int) -> tuple[str, str, dict[str, Any]]:
        if number % 5 == 0:
            line = {"product_id": self._today.product_id, "quantity": 1}
            body = {"lines": [line], "shipping_address": ADDRESS, "payment_token": "tok_ok"}
            return "POST", "/v1/orders", {"json": body, "headers": {"idempotency-key": uuid4().hex}}
        paths = (
            f"/v1/products/{self._today.product_id}",
            "/v1/orders?limit=5",
            "/v1/notifications",
            "/v1/users/me",
        )
        return "GET", paths[number % 5 - 1], {}


async def restart(platform: Mortal, part: str) -> None:
    """Restart one part as the supervisor does, and wait until it is back."""
    child = platform.children[part]
    before = child.restarts
    child.restart()
    async with asyncio.timeout(60):
        while child.restarts == before or not child.is_ready:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)


@pytest.mark.skipif(given() is not None, reason="needs a platform of its own, to restart it: unset E2E_BASE_URL")
async def test_a_rolling_restart_of_every_part_fails_no_request(tmp_path: Path) -> None:
    async with mortal(tmp_path / "data", PATIENT) as platform, Shop(platform.url("gateway")) as shop:
        today = await begin(shop, platform, MailServer())
        load = Load(today)
        asking = asyncio.create_task(load.run())
        for part in platform.children:
            await restart(platform, part)
        load.stop()
        await asking
        assert load.failures == []
        assert load.answers["POST 201"] > 0
        orders = await shop.all("/v1/orders", today.buyer)
        assert {order["id"] for order in orders} == set(load.placed)
