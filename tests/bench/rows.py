"""The rows of the table. Each function drives a floor and our code in turn, and returns a row with their medians."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median

import aiohttp
import grpc.aio

from events.catalog import OrderCancelled
from events.publisher import dataschema
from events.service_keys import PrivateKey, ServiceKeys
from events.signatures import EXTENSION, Signer, Verifier
from functions.runtime.ids import new_id, uuid7
from proto.shop.products.v1 import products_pb2 as pb
from proto.shop.products.v1 import products_pb2_grpc
from tests.bench.measure import ROOT, Call, Child, Sample, await_port, drive, free_port, running
from tests.bench.row import Pair, Row, compared, in_turn, turns
from tests.bench.shop import BenchShop
from tests.signing import signed


async def unary_rpc(shop: BenchShop, seconds: float, rounds: int) -> Row:
    """Measure a unary RPC with all that our server does: it checks a token, and reads a durable store."""
    port = free_port()
    with running(["-m", "tests.bench.floors", "grpc", str(port)], port) as bare:
        async with (
            grpc_get(f"127.0.0.1:{port}", shop.product, shop.token) as floor_call,
            grpc_get(shop.address("products"), shop.product, shop.token) as our_call,
        ):
            return await in_turn(
                "unary RPC, all steps of the server",
                lambda: drive(floor_call, [bare], seconds),
                lambda: drive(our_call, [shop.child("products")], seconds),
                rounds,
                0.6,
            )


@asynccontextmanager
async def grpc_get(address: str, product: str, token: str) -> AsyncIterator[Call]:
    """Yield a GetProduct call with the metadata that every hop carries."""
    metadata = (
        ("authorization", f"Bearer {token}"),
        ("x-correlation-id", "bench-correlation-id"),
        ("traceparent", f"00-{'a' * 32}-{'b' * 16}-00"),
    )
    async with grpc.aio.insecure_channel(address) as channel:
        stub = products_pb2_grpc.ProductsServiceStub(channel)
        request = pb.GetProductRequest(product_id=product)

        async def call() -> None:
            await stub.GetProduct(request, metadata=metadata)

        yield call


async def gateway_get(shop: BenchShop, seconds: float, rounds: int) -> Row:
    """Measure GET /v1/products/{id} of the gateway."""
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
    """Return a call that sends a GET and requires a 200."""

    async def call() -> None:
        async with session.get(url) as answer:
            await answer.read()
            assert answer.status == 200, answer.status

    return call


async def event(shop: BenchShop, seconds: float, rounds: int) -> Row:
    """Measure a durable event with inbox record and store write: order.cancelled of an order unknown to stock."""
    port, key = free_port(), shop.key("orders")
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
            floor_call = post_cancelled(session, f"http://127.0.0.1:{port}/", key)
            our_call = post_cancelled(session, shop.url("products"), key)
            return await in_turn(
                "an event handled, durable",
                lambda: drive(floor_call, [bare], seconds),
                lambda: drive(our_call, [shop.child("products")], seconds),
                rounds,
                0.6,
                note="floor: functions-framework's hello world, which stores nothing. On a busy disk compare the CPU.",
            )


def signatures(order_ms: float, rounds: int) -> Row:
    """Measure the CPU milliseconds to sign and verify the events of an order: five are sent, eight are received.

    `order_ms` is the CPU time of a whole order in the same run.
    """
    key = PrivateKey.generate("orders")
    keys = ServiceKeys({}).with_key("orders", key.public)
    signer, verifier = Signer(lambda: key), Verifier(lambda: keys)
    order = new_id("ord")
    data = f'{{"order_id":"{order}","user_id":"{new_id("usr")}","reason":"BENCH"}}'.encode()
    event = {
        "id": uuid7(),
        "source": "/orders",
        "type": OrderCancelled.TYPE,
        "subject": order,
        "time": "2030-01-01T12:00:00.123456Z",
        "dataschema": dataschema(OrderCancelled.TYPE),
    }
    signed_event = {**event, EXTENSION: signer.sign(event, data)}

    def once() -> float:
        began = time.process_time()
        for _ in range(_ORDERS):
            for _ in range(_SENT):
                signer.sign(event, data)
            for _ in range(_HEARD):
                verifier.verify(signed_event, data)
        return (time.process_time() - began) * 1000 / _ORDERS

    spent = median(once() for _ in range(rounds))
    return Row(
        "signatures of an order's events",
        Sample(spent, spent, 0),
        Sample(order_ms, order_ms, 0),
        spent / order_ms,
        0.1,
        at_least=False,
        unit="ms",
        note=f"{_SENT} signed and {_HEARD} checked; floor: the CPU of the whole order in the checkout above",
    )


def post_cancelled(session: aiohttp.ClientSession, url: str, key: PrivateKey) -> Call:
    """Return a call that posts a new event and requires its acknowledgement."""
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
        headers = signed({**base, "ce-id": uuid7(), "ce-subject": order}, data.encode(), key)
        async with session.post(url, data=data, headers=headers) as answer:
            await answer.read()
            assert answer.status == 204, answer.status

    return call


_TURNS = 3
_ORDERS, _SENT, _HEARD = 200, 5, 8


async def tracing(folder: Path, orders: int, rounds: int) -> Row:
    """Measure the checkout with every trace recorded and sent against the checkout without traces.

    The spans go to a process on the same cores that does not read them. Its CPU time and that of the callers lower the
    rate, but are not part of the CPU time per order.
    """
    port = free_port()
    with running(["-m", "tests.bench.floors", "otlp", str(port)], port):
        on = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        pairs = await _checkouts(folder, {}, on, orders, rounds)
    return compared(
        "checkout, traces on (100 %) against off",
        pairs,
        0.9,
        unit="orders/s",
        note="the CPU is the platform's alone; the rate also pays for the callers and for what takes the spans",
    )


async def postgres(folder: Path, orders: int, rounds: int) -> Row:
    """Measure the checkout on PostgreSQL against that on SQLite, the CPU time of the server included."""
    pairs = await _checkouts(folder, {}, {"store": "postgres"}, orders, rounds)
    cpu = median(ours.cpu_ms / floor.cpu_ms for floor, ours in pairs)
    note = f"floor: SQLite; the CPU, with that of the server, is {cpu:.2f} times SQLite's"
    return compared("checkout, durable, PostgreSQL against SQLite", pairs, None, unit="orders/s", note=note)


async def _checkouts(
    folder: Path, floor: Mapping[str, str], ours: Mapping[str, str], orders: int, rounds: int
) -> list[Pair]:
    """Measure checkouts of two platforms, with these arguments of BenchShop, in turn.

    Each round starts a new pair in the opposite order, because two equal platforms differ by up to 9 % as long as they
    run, and the one that was started later is mostly faster.
    """
    pairs: list[Pair] = []
    for number in range(rounds):
        sides = [("floor", floor), ("ours", ours)]
        async with AsyncExitStack() as stack:
            shops: dict[str, BenchShop] = {}
            for name, given in sides if number % 2 else reversed(sides):
                place = folder / str(number) / name
                place.mkdir(parents=True)
                shops[name] = await stack.enter_async_context(BenchShop(place, **given))
                await _checkout(shops[name], orders)  # warm-up, not measured
            pairs += await turns(
                partial(_checkout, shops["floor"], orders), partial(_checkout, shops["ours"], orders), _TURNS
            )
    return pairs


async def _checkout(shop: BenchShop, orders: int) -> Sample:
    sample, facts = await shop.checkout(orders)
    assert not facts["errors"], facts
    return sample


async def starts(folder: Path, rounds: int) -> list[Row]:
    """Measure the time to the first listening port, against a bare server with the same libraries imported."""
    port = free_port()
    loaded = [await _start(["-m", "tests.bench.floors", "grpc-loaded", str(port)], port, {}) for _ in range(rounds)]
    bare = [await _start(["-m", "tests.bench.floors", "grpc", str(port)], port, {}) for _ in range(rounds)]
    environ = {
        "STORE_URL": f"sqlite:///{folder}/starts",
        "SERVICE_KEY_FILE": str(folder / "platform/secrets/service-key-orders/service.pem"),
        "SERVICE_KEYS_FILE": str(folder / "platform/secrets/service-keys/jwks.json"),
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
    """Byte-compile the measured sources, as the images do."""
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
