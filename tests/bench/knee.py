"""`make knee`: measures at which concurrency each service is full, as one process of its own on this machine.

Callers that ask again as soon as they have an answer are added step by step, and the Universal Scalability Law
(Gunther, Guerrilla Capacity Planning, 2007) is fitted to the throughput. The knee is the smallest concurrency at which
the law has 90 % of its best throughput: beyond it a request mostly waits for others. The store is a private PostgreSQL;
events go to a process that accepts all of them and does nothing; peers are those of a whole platform beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle, product
from pathlib import Path
from statistics import quantiles
from typing import Any

import aiohttp
import grpc.aio
import msgspec

from events.catalog import (
    Line,
    Money,
    NotificationBounced,
    OrderConfirmed,
    OrderPlaced,
    Payload,
    PaymentCaptured,
    StockReserved,
)
from functions.runtime.ids import new_id, uuid7
from knative.local.demo.shop import ADDRESS, Person, Shop
from proto.shop.notifications.v1 import notifications_pb2, notifications_pb2_grpc
from proto.shop.orders.v1 import orders_pb2, orders_pb2_grpc
from proto.shop.payments.v1 import payments_pb2, payments_pb2_grpc
from proto.shop.users.v1 import users_pb2, users_pb2_grpc
from tests.bench.measure import ROOT, Call, free_port, running
from tests.bench.report import write_table
from tests.bench.rows import compile_sources, grpc_get, http_get
from tests.bench.shop import BenchShop, make_product
from tests.signing import signed

STEPS = (1, 2, 4, 8, 16, 32, 64)
ENOUGH = 0.9
JSON = ROOT / "build" / "knee.json"
PAGE = ROOT / "docs" / "capacity.md"
_CONTENTIONS = [number / 100 for number in range(101)]
_COHERENCIES = [0, *(10 ** (number / 10 - 6) for number in range(51))]  # 0.000001 to 0.1
_PRODUCTS = 20
_SPARE_ORDERS = 64
_PRICE = Money(1190, "EUR")


@dataclass(frozen=True)
class Step:
    """What `callers` at once get: answers a second, latency (p95), and the service's CPU for each."""

    callers: int
    rate: float
    p95_ms: float
    cpu_ms: float


def speed_up(callers: int, contention: float, coherency: float) -> float:
    """Return by how much more than one caller so many get, by the Universal Scalability Law."""
    return callers / (1 + contention * (callers - 1) + coherency * callers * (callers - 1))


def fit(steps: Sequence[Step]) -> tuple[float, float]:
    """Return contention and coherency of the law that has the least squared relative error against the steps."""

    def error(parameters: tuple[float, float]) -> float:
        ratios = [step.rate / speed_up(step.callers, *parameters) for step in steps]
        rate_of_one = sum(ratio**2 for ratio in ratios) / sum(ratios)
        return sum((ratio / rate_of_one - 1) ** 2 for ratio in ratios)

    return min(product(_CONTENTIONS, _COHERENCIES), key=error)


def knee(steps: Sequence[Step]) -> int:
    """Return the smallest concurrency at which the fitted law has 90 % of its best throughput."""
    law = fit(steps)
    rates = {callers: speed_up(callers, *law) for callers in range(STEPS[0], STEPS[-1] + 1)}
    return min(callers for callers, rate in rates.items() if rate >= ENOUGH * max(rates.values()))


def best(same: Sequence[Step]) -> Step:
    """Return the best of repeated steps: other work on the machine can only slow one down."""
    return max(same, key=lambda step: step.rate)


def main() -> int:
    """Return 0 once everything is measured."""
    parser = argparse.ArgumentParser(prog="make knee", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each step")
    parser.add_argument("--rounds", type=int, default=3, help="all steps in turn; the best of each counts")
    parser.add_argument("--services", nargs="*", choices=list(CALLS), default=list(CALLS))
    parser.add_argument("--json", type=Path, default=JSON)
    parser.add_argument("--no-page", action="store_true", help="leave docs/capacity.md as it is")
    options = parser.parse_args()
    compile_sources()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_measure(Path(folder), options))
    report = {"at": datetime.now(UTC).isoformat(), "seconds": options.seconds, "rounds": options.rounds}
    services = {name: {"call": what, "steps": list(map(asdict, steps))} for name, (what, steps) in found.items()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({**report, "services": services}, indent=2) + "\n")
    table = markdown(found)
    print(table)
    if not options.no_page:
        conditions = f"two cores, PostgreSQL, the best of {options.rounds} times {options.seconds:g} s a step"
        write_table(PAGE, table, "knee", conditions)
    return 0


def markdown(found: dict[str, tuple[str, list[Step]]]) -> str:
    """Return a row for each service: throughput as shares of the best, the knee, and p95 as multiples of one caller's.

    p95 "there" is that of the first measured step at or above the knee.
    """
    titles = ["service", "call", *map(str, STEPS), "knee", "p95 there", "p95 of 64"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, (what, steps) in found.items():
        full, most = knee(steps), best(steps).rate
        shares = " | ".join(f"{step.rate / most:.2f}" for step in steps)
        there = next(step for step in steps if step.callers >= full)
        times = " | ".join(f"{step.p95_ms / steps[0].p95_ms:.1f}" for step in (there, steps[-1]))
        lines.append(f"| {name} | {what} | {shares} | **{full}** | {times} |")
    return "\n".join(lines)


@dataclass
class Pod:
    """A service that is measured, and where it is reached: host:port for gRPC, a URL for HTTP."""

    process: Any
    address: str


class Stage:
    """What the calls need beside the measured service: a platform with products, people and orders."""

    def __init__(self, shop: BenchShop, broker: str, session: aiohttp.ClientSession) -> None:
        self.shop = shop
        self.session = session
        self.products: list[str] = []
        self.placed: list[str] = []
        self._broker = broker

    async def prepare(self) -> None:
        """Make products, people, an order that is confirmed, and some orders that nobody else hears of."""
        async with Shop(self.shop.base_url) as shop:
            self.products = [await make_product(shop, self.shop.admin, 100_000_000) for _ in range(_PRODUCTS)]
            self.bouncing = await shop.register()
            self.confirmed = str((await shop.order(self.shop.person, {self.products[0]: 1}))["id"])
            await shop.settled(self.shop.person, self.confirmed, status="CONFIRMED", seconds=60)
        with self.pod("orders") as pod:
            async with CALLS["orders"][1](self, pod) as place:
                for _ in range(_SPARE_ORDERS):
                    await place()

    async def signed_in(self) -> Person:
        """Return the customer with new tokens."""
        person = self.shop.person
        async with Shop(self.shop.base_url) as shop:
            return await shop.login(person.email, person.password, person.profile)

    @contextmanager
    def pod(self, service: str) -> Iterator[Pod]:
        """Run one role of a domain as a process of its own, configured as the platform's; the gateway runs already."""
        if service == "gateway":
            yield Pod(self.shop.child("gateway"), self.shop.base_url)
            return
        domain, port = service.removesuffix("-events"), free_port()
        role = "events" if service.endswith("-events") else "rpc"
        own = {"ROLE": role, "PORT": str(port), "HTTP_PORT": "0", "BROKER_URL": self._broker}
        with running(["-m", f"functions.{domain}.main"], port, self.shop.environ(domain) | own) as process:
            yield Pod(process, f"127.0.0.1:{port}" if role == "rpc" else f"http://127.0.0.1:{port}/")


async def _measure(folder: Path, options: argparse.Namespace) -> dict[str, tuple[str, list[Step]]]:
    port, found = free_port(), {}
    async with BenchShop(folder, store="postgres") as shop, aiohttp.ClientSession() as session:
        with running(["-m", "tests.bench.floors", "sink", str(port)], port):
            stage = Stage(shop, f"http://127.0.0.1:{port}/", session)
            await stage.prepare()
            for service in options.services:
                what, make = CALLS[service]
                with stage.pod(service) as pod:
                    async with make(stage, pod) as call:
                        found[service] = what, await _steps(call, pod, options.seconds, options.rounds)
                print(f"  measured: {service}", file=sys.stderr, flush=True)
    return found


async def _steps(call: Call, pod: Pod, seconds: float, rounds: int) -> list[Step]:
    await _step(call, pod, STEPS[-1], seconds)  # opens connections and imports what the first call needs
    taken = [[await _step(call, pod, callers, seconds) for callers in STEPS] for _ in range(rounds)]
    return [best(same) for same in zip(*taken, strict=True)]


async def _step(call: Call, pod: Pod, callers: int, seconds: float) -> Step:
    took: list[float] = []
    cpu, start = pod.process.cpu_seconds(), time.perf_counter()

    async def caller() -> None:
        while (began := time.perf_counter()) < start + seconds:
            await call()
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(callers)))
    elapsed = time.perf_counter() - start
    spent = pod.process.cpu_seconds() - cpu
    p95 = quantiles([*took, took[-1]], n=20, method="inclusive")[18]
    return Step(callers, len(took) / elapsed, p95 * 1000, spent * 1000 / len(took))


@asynccontextmanager
async def _rpc(stage: Stage, pod: Pod, stub: Any, method: str, request: Callable[[], Any]) -> AsyncIterator[Call]:
    """Yield a call of a method by the customer."""
    token = (await stage.signed_in()).tokens["access_token"]
    async with grpc.aio.insecure_channel(pod.address) as channel:
        rpc = getattr(stub(channel), method)

        async def call() -> None:
            answer = await rpc(request(), metadata=(("authorization", f"Bearer {token}"),))
            if method == "PlaceOrder":
                stage.placed.append(answer.order.id)

        yield call


def _get_product(stage: Stage, pod: Pod) -> AbstractAsyncContextManager[Call]:
    return grpc_get(pod.address, stage.products[0], stage.shop.token)


@asynccontextmanager
async def _gateway_get(stage: Stage, pod: Pod) -> AsyncIterator[Call]:
    yield http_get(stage.session, f"{pod.address}/v1/products/{stage.products[0]}")


def _place_order(stage: Stage, pod: Pod) -> AbstractAsyncContextManager[Call]:
    products = cycle(stage.products)

    def request() -> orders_pb2.PlaceOrderRequest:
        return orders_pb2.PlaceOrderRequest(
            lines=[orders_pb2.LineRequest(product_id=next(products), quantity=1)],
            shipping_address=orders_pb2.ShippingAddress(**ADDRESS),
            payment_token="tok_ok",
            idempotency_key=uuid7(),
        )

    return _rpc(stage, pod, orders_pb2_grpc.OrdersServiceStub, "PlaceOrder", request)


def _login(stage: Stage, pod: Pod) -> AbstractAsyncContextManager[Call]:
    person = stage.shop.person
    request = users_pb2.LoginRequest(email=person.email, password=person.password)
    return _rpc(stage, pod, users_pb2_grpc.UsersServiceStub, "Login", lambda: request)


def _get_payment(stage: Stage, pod: Pod) -> AbstractAsyncContextManager[Call]:
    request = payments_pb2.GetOrderPaymentRequest(order_id=stage.confirmed)
    return _rpc(stage, pod, payments_pb2_grpc.PaymentsServiceStub, "GetOrderPayment", lambda: request)


def _list_notifications(stage: Stage, pod: Pod) -> AbstractAsyncContextManager[Call]:
    request, stub = notifications_pb2.ListNotificationsRequest(), notifications_pb2_grpc.NotificationsServiceStub
    return _rpc(stage, pod, stub, "ListNotifications", lambda: request)


@asynccontextmanager
async def _event(stage: Stage, pod: Pod, events: Iterator[Payload]) -> AsyncIterator[Call]:
    """Yield a call that delivers the next event, as the broker does, and requires its acknowledgement."""
    keys = {name: stage.shop.key(name) for name in ("orders", "products", "payments", "notifications")}

    async def call() -> None:
        event = next(events)
        headers = {
            "ce-specversion": "1.0",
            "ce-type": event.TYPE,
            "ce-source": event.SOURCE,
            "ce-id": uuid7(),
            "ce-subject": event.subject,
            "content-type": "application/json",
        }
        data = msgspec.json.encode(event)
        headers = signed(headers, data, keys[event.SOURCE[1:]])
        async with stage.session.post(pod.address, data=data, headers=headers) as answer:
            assert answer.status == 204, (answer.status, await answer.text())

    yield call


def _reserve(stage: Stage, pod: Pod) -> AbstractAsyncContextManager[Call]:
    user = stage.shop.person.id
    events = (
        OrderPlaced(order_id=new_id("ord"), user_id=user, lines=[Line(product, 1, _PRICE)], total=_PRICE)
        for product in cycle(stage.products)
    )
    return _event(stage, pod, events)


def _charge(stage: Stage, pod: Pod) -> AbstractAsyncContextManager[Call]:
    return _event(stage, pod, (_reserved(order) for order in cycle(stage.placed)))


def _proceed(stage: Stage, pod: Pod) -> AbstractAsyncContextManager[Call]:
    def events() -> Iterator[Payload]:
        for order in cycle(stage.placed):
            yield _reserved(order)
            yield PaymentCaptured(order_id=order, payment_id=f"pay_{order[4:]}", amount=_PRICE)

    return _event(stage, pod, events())


def _reserved(order: str) -> StockReserved:
    return StockReserved(order_id=order, expires_at=datetime.now(UTC) + timedelta(minutes=30))


def _notify(stage: Stage, pod: Pod) -> AbstractAsyncContextManager[Call]:
    user = stage.shop.person.id
    events = (
        OrderConfirmed(order_id=new_id("ord"), user_id=user, total=_PRICE, product_ids=[product])
        for product in cycle(stage.products)
    )
    return _event(stage, pod, events)


def _bounce(stage: Stage, pod: Pod) -> AbstractAsyncContextManager[Call]:
    user = stage.bouncing.id
    events = (
        NotificationBounced(notification_id=new_id("ntf"), user_id=user)
        for _ in iter(int, 1)  # without an end
    )
    return _event(stage, pod, events)


CALLS: dict[str, tuple[str, Callable[[Stage, Pod], AbstractAsyncContextManager[Call]]]] = {
    "gateway": ("GET /v1/products/{id}", _gateway_get),
    "users": ("Login", _login),
    "products": ("GetProduct", _get_product),
    "orders": ("PlaceOrder", _place_order),
    # Before orders-events, which confirms what this is to charge.
    "payments-events": ("stock.reserved", _charge),
    "payments": ("GetOrderPayment", _get_payment),
    "orders-events": ("stock.reserved, payment.captured", _proceed),
    "products-events": ("order.placed", _reserve),
    "notifications-events": ("order.confirmed", _notify),
    "notifications": ("ListNotifications", _list_notifications),
    "users-events": ("notification.bounced", _bounce),
}
"""By service: the call that it gets most, or that takes the most, and how it is made."""


if __name__ == "__main__":
    sys.exit(main())
