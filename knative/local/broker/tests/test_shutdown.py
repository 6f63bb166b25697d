"""Stopping lets the requests on their way end, within a bound."""

from __future__ import annotations

import asyncio
from pathlib import Path

from events.tests.support import subscribed, until
from knative.local.broker.app import BrokerApp
from knative.local.broker.config import from_documents
from knative.local.broker.tests.support import broker, running, trigger


async def test_a_request_on_its_way_ends_and_nothing_new_begins(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with subscribed(gate=gate) as subscriber:
        async with running(tmp_path, broker(), trigger("t", subscriber.url)) as it:
            for number in range(40):
                await it.post(str(number))
            await until(lambda: len(subscriber.received) == 32)
            stopping = asyncio.create_task(it.app.stop())
            await asyncio.sleep(0)
            gate.set()
            await stopping
        assert len(subscriber.received) == 32
        async with running(tmp_path, broker(), trigger("t", subscriber.url)):
            await until(lambda: len(subscriber.received) == 40)
    assert len(set(subscriber.ids)) == 40


async def test_one_that_does_not_end_is_cut_short_and_repeated_at_the_next_start(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with subscribed(gate=gate) as subscriber:
        app = BrokerApp(from_documents([broker(), trigger("t", subscriber.url)]), tmp_path)
        async with running(tmp_path, broker(), trigger("t", subscriber.url)) as it:
            await it.post()
            await until(lambda: len(subscriber.received) == 1)
            await it.app.stop(grace=0.01)
        gate.set()
        await app.start()
        await until(lambda: len(subscriber.received) == 2)
        await app.stop()
