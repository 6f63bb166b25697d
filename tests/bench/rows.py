"""The rows of the table: each drives a floor and our code in turn, and gives their medians."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import grpc.aio

from events.catalog import OrderCancelled
from functions.runtime.ids import new_id, uuid7
from proto.products.v1 import products_pb2 as pb
from proto.products.v1 import products_pb2_grpc
from tests.bench.measure import ROOT, Call, Child, Sample, await_port, drive, free_port, middle, running
from tests.bench.shop import BenchShop


@dataclass
class Row:
    """One line: `ratio` is ours to the floor, `budget` its bound (`at_least` or at most), None where none is
    set.
    """

    name: str
    ours: Sample
    floor: Sample | None = None
    ratio: float | None = None
    budget: float | None = None
    at_least: bool = True
    unit: str = "/s"
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the budget holds; None without one."""
        if self.ratio is None or self.budget is None:
            return None
        return self.ratio >= self.budget if self.at_least else self.ratio <= self.budget


Drive = Callable[[], Awaitable[Sample]]


async def in_turn(name: str, floor: Drive, ours: Drive, rounds: int, budget: float, **more: Any) -> Row:
    """Floor, ours, floor, ours, ...; the ratio is the median of the rounds' own."""
    pairs = []
    for _ in range(rounds):
        pairs.append((await floor(), await ours()))
    ratio = median(mine.rate / bare.rate for bare, mine in pairs)
    floors, mine = middle([bare for bare, _ in pairs]), middle([mine for _, mine in pairs])
    return Row(name, mine, floors, ratio, budget, **more)


async def unary_rpc(shop: BenchShop, seconds: float, rounds: int) -> Row:
    """A unary RPC through all that ours does, with a token, from a durable store."""
    port = free_port()
    with running(["-m", "tests.bench.floors", "grpc", str(port)], port) as bare:
        async with (
            grpc_get(f"127.0.0.1:{port}", shop.product, shop.token) as floor_call,
            grpc_get(shop.address("products"), shop.product, shop.token) as our_call,
        ):
            return await in_turn(
                "unary RPC, all of the door",
                lambda: drive(floor_call, [bare], seconds),
                lambda: drive(our_call, [shop.child("products")], seconds),
                rounds,
                0.6,
            )


@asynccontextmanager
async def grpc_get(address: str, product: str, token: str) -> AsyncIterator[Call]:
    """GetProduct with everything that a hop carries."""
    metadata = (
        ("authorization", f"Bearer {token}"),
        ("x-correlation-id", "bench-correlation-id"),
        ("traceparent", f"00-{'a' * 32}-{'b' * 16}-00"),
    )
    async with grpc.aio.insecure_channel(address) as channel:
        stub = products_pb2_grpc.ProductsStub(channel)
        request = pb.GetProductRequest(product_id=product)

        async def call() -> None:
            await stub.GetProduct(request, metadata=metadata)

        yield call


async def gateway_get(shop: BenchShop, seconds: float, rounds: int) -> Row:
    """GET /v1/products/{id}."""
    back, front = free_port(), free_port()
    with ExitStack() as stack:
        bare_back = stack.enter_context(running(["-m", "tests.bench.floors", "grpc", str(back)], back))
        command = ["-m", "tests.bench.floors", "fastapi", str(front), f"127.0.0.1:{back}"]
        bare = stack.enter_context(running(command, front))
        async with aiohttp.ClientSession() as session:
            path = f"/v1/products/{shop.product}"
            floor_call = http_get(session, f"http://127.0.0.1:{front}{path}")
            our_call = http_get(session, f"{shop.base_url}{path}")
            return await in_turn(
                "GET /v1/products/{id} at the gateway",
                lambda: drive(floor_call, [bare, bare_back], seconds),
                lambda: drive(our_call, [shop.child("gateway"), shop.child("products")], seconds),
                rounds,
                0.7,
            )


def http_get(session: aiohttp.ClientSession, url: str) -> Call:
    """One GET that must answer 200."""

    async def call() -> None:
        async with session.get(url) as answer:
            await answer.read()
            assert answer.status == 200, answer.status

    return call


async def event(shop: BenchShop, seconds: float, rounds: int) -> Row:
    """An event with inbox mark and store write, durable: order.cancelled for an order that stock never heard
    of.
    """
    port = free_port()
    hello = [
        "-m",
        "functions_framework",
        "--target",
        "hello",
        "--source",
        "tests/bench/floors.py",
        "--port",
        str(port),
    ]
    with running(hello, port) as bare:
        async with aiohttp.ClientSession() as session:
            floor_call = post_cancelled(session, f"http://127.0.0.1:{port}/")
            our_call = post_cancelled(session, shop.url("products"))
            return await in_turn(
                "an event handled, durable",
                lambda: drive(floor_call, [bare], seconds),
                lambda: drive(our_call, [shop.child("products")], seconds),
                rounds,
                0.6,
                note="floor: functions-framework's default hello world, which stores nothing",
            )


def post_cancelled(session: aiohttp.ClientSession, url: str) -> Call:
    """One event of its own, which must be acknowledged."""
    base = {
        "ce-specversion": "1.0",
        "ce-type": OrderCancelled.TYPE,
        "ce-source": OrderCancelled.SOURCE,
        "content-type": "application/json",
    }
    user = new_id("usr")

    async def call() -> None:
        order = new_id("ord")
        data = f'{{"order_id":"{order}","user_id":"{user}","reason":"BENCH"}}'
        async with session.post(
            url, data=data, headers={**base, "ce-id": uuid7(), "ce-subject": order}
        ) as answer:
            await answer.read()
            assert answer.status == 204, answer.status

    return call


KNATIVE_TO_HELLO = 2130 / 2610
"""Knative's in-memory broker (delivered events a second, 32 callers) to functions-framework's default hello
world, both measured on one machine; the design's table has the figures. It lets this run compare without
building Knative."""


async def broker(folder: Path, seconds: float, rounds: int, hello_rate: float) -> Row:
    """Intake to delivery, durable, to a subscriber that only answers 204."""
    samples = []
    for number in range(rounds):
        port, sink = free_port(), free_port()
        config = folder / f"broker-{number}.yaml"
        config.write_text(_TRIGGER.format(sink=sink))
        command = ["-m", "events.broker", "--config", str(config), "--port", str(port)]
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


async def starts(folder: Path, rounds: int) -> list[Row]:
    """Process start to the first port that listens, against a bare server with the same libraries imported."""
    port = free_port()
    loaded = [
        await _start(["-m", "tests.bench.floors", "grpc-loaded", str(port)], port, {}) for _ in range(rounds)
    ]
    bare = [await _start(["-m", "tests.bench.floors", "grpc", str(port)], port, {}) for _ in range(rounds)]
    environ = {
        "STORE_URL": f"sqlite:///{folder}/starts",
        "SERVICE_KEY_FILE": str(folder / "secrets/service.pem"),
    }
    rows = []
    for role, budget in (("rpc", 0.75), ("events", 0.9)):
        env = {**environ, "ROLE": role, "PORT": str(port), "HTTP_PORT": "0"}
        ours = [await _start(["-m", "functions.orders.main"], port, env) for _ in range(rounds)]
        ratio = median(mine / floor for mine, floor in zip(ours, loaded, strict=True))
        rows.append(
            Row(
                f"process start to serving, {role} role",
                Sample(median(ours), 0, 0),
                Sample(median(loaded), 0, 0),
                ratio,
                budget,
                at_least=False,
                unit="s",
                note=f"bare grpc.aio server: {median(bare):.3f} s",
            )
        )
    return rows


async def _start(command: Sequence[str], port: int, environ: dict[str, str]) -> float:
    start = time.perf_counter()
    child = Child(command, environ)
    try:
        await_port(child, port)
        return time.perf_counter() - start
    finally:
        await asyncio.to_thread(child.stop)


def compile_sources() -> None:
    """Byte-compile what is measured, as an image is."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "compileall",
            "-q",
            "functions",
            "gateway",
            "events",
            "observability",
            "proto",
            "tests",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        check=False,
    )
