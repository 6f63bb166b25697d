"""The benchmark row of the local broker."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp

from events.catalog import OrderCancelled
from functions.runtime.ids import new_id, uuid7
from tests.bench.measure import Child, Sample, free_port, middle, running
from tests.bench.row import Row

KNATIVE_TO_HELLO = 2130 / 2610
"""The ratio of Knative's in-memory broker (delivered events a second, 32 callers) to functions-framework's default
hello world. Both were measured on one machine; the design's table has the figures. The ratio allows a comparison
without building Knative."""


async def broker(folder: Path, seconds: float, rounds: int, hello_rate: float) -> Row:
    """Measure durable events from intake to delivery, to a subscriber that only answers 204."""
    samples = []
    for number in range(rounds):
        port, sink = free_port(), free_port()
        config = folder / f"broker-{number}.yaml"
        config.write_text(_TRIGGER.format(sink=sink))
        command = ["-m", "knative.local.broker", "--config", str(config), "--port", str(port)]
        with ExitStack() as stack:
            stack.enter_context(running(["-m", "tests.bench.floors", "sink", str(sink)], sink))
            data = ["--data", str(folder / f"broker-{number}")]
            child = stack.enter_context(running([*command, *data], port, {"LOG_LEVEL": "WARNING"}))
            samples.append(await _through(child, port, sink, seconds))
    ours, floor = middle(samples), hello_rate * KNATIVE_TO_HELLO
    return Row(
        "local broker, durable, end to end",
        ours,
        Sample(floor, 0, 0),
        ours.rate / floor,
        1.0,
        note="floor: Knative's in-memory broker, not durable; recorded relative to hello world, scaled to this run",
    )


_TRIGGER = """
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {{name: default, namespace: shop}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {{name: bench, namespace: shop}}
spec:
  broker: default
  filter: {{attributes: {{type: shop.order.cancelled.v1}}}}
  subscriber: {{uri: "http://127.0.0.1:{sink}/"}}
"""


async def _through(child: Child, port: int, sink: int, seconds: float) -> Sample:
    async with aiohttp.ClientSession() as session:

        async def delivered() -> int:
            async with session.get(f"http://127.0.0.1:{sink}/count") as answer:
                return int(await answer.text())

        user, before, start = new_id("usr"), await delivered(), time.perf_counter()
        cpu = child.cpu_seconds()
        end = start + seconds
        sent = sum(await asyncio.gather(*[_publish(session, port, user, end) for _ in range(32)]))
        while await delivered() - before < sent:  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(0.005)
        took = time.perf_counter() - start
        return Sample(sent / took, (child.cpu_seconds() - cpu) * 1000 / sent, child.memory_mb())


async def _publish(session: aiohttp.ClientSession, port: int, user: str, end: float) -> int:
    headers = {
        "ce-specversion": "1.0",
        "ce-type": OrderCancelled.TYPE,
        "ce-source": OrderCancelled.SOURCE,
        "content-type": "application/json",
    }
    count = 0
    while time.perf_counter() < end:
        data = f'{{"order_id":"{new_id("ord")}","user_id":"{user}","reason":"BENCH"}}'
        url = f"http://127.0.0.1:{port}/shop/default"
        async with session.post(url, data=data, headers={**headers, "ce-id": uuid7()}) as answer:
            assert answer.status == 202, answer.status
        count += 1
    return count
