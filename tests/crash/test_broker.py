"""10,000 events through a broker that is killed every two seconds: whatever it acknowledged, it delivers."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from events.cloudevent import header_block
from events.http_client import HttpClient, RequestFailed
from events.tests.support import free_port, ready, subscribed, until
from knative.local.broker.tests.support import as_yaml, broker, trigger
from tests.crash.points import ROOT

EVENTS, PUBLISHERS = 10_000, 16
PER_SECOND = 800
KILL_EVERY = 2.0  # seconds
_TAKEN = 202
_EVENT = {"specversion": "1.0", "source": "/orders", "type": "shop.order.placed.v1"}


class Killed:
    """A broker that is started again whenever it is dead; `times` counts its deaths."""

    def __init__(self, config: Path, data: Path, port: int) -> None:
        self.times = 0
        self.is_enough = False
        self._port = port
        self._command = [
            sys.executable,
            "-m",
            "knative.local.broker",
            "--config",
            str(config),
            "--data",
            str(data),
        ]
        self._command += ["--port", str(port)]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; who publishes finds out when it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL
        )

    async def kill_regularly(self) -> None:
        """kill -9 and start again, until it is enough. Each time it lives so long after it was ready."""
        while not self.is_enough:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}") as http:
                await ready(http)
            await asyncio.sleep(KILL_EVERY)
            await self.kill()
            self.times += 1
            await self.start()

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()


@contextlib.asynccontextmanager
async def dying(config: Path, data: Path, port: int) -> AsyncIterator[tuple[Killed, asyncio.Task[None]]]:
    """A broker, and who kills it."""
    it = Killed(config, data, port)
    await it.start()
    killer = asyncio.create_task(it.kill_regularly())
    try:
        yield it, killer
    finally:
        killer.cancel()
        await asyncio.gather(killer, return_exceptions=True)
        with contextlib.suppress(ProcessLookupError):
            await it.kill()


async def publish(url: str, part: int) -> None:
    """Events of a share of the numbers, each again and again until it is acknowledged: what an outbox does."""
    client = HttpClient()
    target, loop = client.target(url), asyncio.get_running_loop()
    started = loop.time()
    for count, number in enumerate(range(part, EVENTS, PUBLISHERS)):
        await asyncio.sleep(max(0.0, started + count * PUBLISHERS / PER_SECOND - loop.time()))
        head = header_block({**_EVENT, "id": str(number)})
        while True:
            with contextlib.suppress(RequestFailed):
                if (await client.post(target, head, b"{}", 5.0)).status == _TAKEN:
                    break
            await asyncio.sleep(0.05)
    client.close()


@pytest.mark.slow
async def test_every_acknowledged_event_of_10000_is_delivered_by_a_broker_killed_every_2_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, config, data = free_port(), tmp_path / "broker.yaml", tmp_path / "data"
    everything = {str(number) for number in range(EVENTS)}
    async with subscribed() as one, subscribed() as other:
        policy = {"retry": 50, "backoffPolicy": "linear", "backoffDelay": "PT0.01S"}
        triggers = [trigger("one", one.url), trigger("other", other.url)]
        config.write_text(as_yaml([broker(delivery=policy), *triggers]))
        async with dying(config, data, port) as (killed, killer):
            url = f"http://127.0.0.1:{port}/"
            await asyncio.gather(*(publish(url, part) for part in range(PUBLISHERS)))
            killed.is_enough = True
            await killer
            for subscriber in (one, other):
                await until(lambda it=subscriber: len(it.received) >= EVENTS, 60)  # type: ignore[misc] # bound
                await until(lambda it=subscriber: everything <= set(it.ids), 60)  # type: ignore[misc] # bound
            await until(lambda: waiting(data) == 0, 20)
        assert set(one.ids) == set(other.ids) == everything
        assert killed.times >= 4
        with capsys.disabled():
            again = len(one.ids) + len(other.ids) - 2 * EVENTS
            sys.stdout.write(f"  {EVENTS} events, {killed.times} kills, 0 lost, {again} delivered again\n")


def waiting(data: Path) -> int:
    """Deliveries that the broker still has to make."""
    with contextlib.closing(sqlite3.connect(data / "broker.db")) as db:
        return int(db.execute("SELECT count(*) FROM deliveries").fetchone()[0])
