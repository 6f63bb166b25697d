"""`make bench-cluster`: measures a platform on a cluster, through its ingress, and the CPU that each part of it takes.

CPU is what the kubelets account to containers (`/metrics/resource`, through the API server), without what the same
containers take while nothing is asked of them. Orders are not polled: their latencies are in their timelines, and one
list of one customer shows whether all are done.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import Any, TypeVar

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from knative.local.demo.shop import FINAL, Person, Shop
from proto.shop.products.v1 import products_pb2 as pb
from proto.shop.products.v1 import products_pb2_grpc
from tests.attack.cluster import PLATFORM, Cluster
from tests.bench.measure import ROOT
from tests.bench.report import write_table
from tests.bench.shop import make_product
from tests.e2e.platform import grpc_ingress

ORDERS_EACH = 5
"""Orders that a customer places: less than an account without history may have unpaid at once."""
PARTS = (
    "platform",
    "eventing",
    "store",
    "queue-proxy",
    "sidecar",
    "activator",
    "ingress",
    "control planes",
    "node",
)
_STORES = ("postgres", "dynamodb")
_SAMPLE_SECONDS = 5.0
_SETTLE_SECONDS = 25.0
"""A kubelet reads the CPU of a container every 10 to 15 s."""


def main() -> int:
    """Return 0 once everything is measured."""
    parser = argparse.ArgumentParser(prog="make bench-cluster", description=__doc__)
    parser.add_argument("--name", default="dev overlay", help="of this configuration, above its column")
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each kind of read")
    parser.add_argument("--idle", type=float, default=40.0, help="seconds in which the CPU at rest is read")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench-cluster.json")
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="JSON of earlier runs, to compare")
    parser.add_argument("--no-page", action="store_true", help="leave docs/benchmarks.md as it is")
    options = parser.parse_args()
    missing = [name for name in ("KUBECONFIG", "E2E_BASE_URL", "E2E_HOST") if not os.environ.get(name)]
    if missing:
        parser.error(f"set {', '.join(missing)}")
    run = asyncio.run(_measure(options))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(run, indent=2) + "\n")
    table = markdown([*(json.loads(path.read_text()) for path in options.beside), run])
    print(table)
    if not options.no_page:
        nodes = len(Cluster().get("nodes")["items"])
        conditions = f"{nodes} node{'s' if nodes > 1 else ''}, {options.callers} callers"
        write_table(ROOT / "docs/benchmarks.md", table, "cluster", conditions)
    return 0


@dataclass
class Work:
    """What was measured of one kind of request: `cpu_ms` is for each request, by part."""

    count: int
    rate: float
    milliseconds: dict[str, float]
    cpu_ms: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


Result = TypeVar("Result")
Container = tuple[str, str, str]
"""Namespace, pod and container."""


class CpuMeter:
    """The CPU seconds of all containers of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._nodes = [node["metadata"]["name"] for node in cluster.get("nodes")["items"]]
        self._read: dict[Container, tuple[float, float]] = {}
        self._first: dict[Container, tuple[float, float]] = {}

    def read(self) -> dict[Container, tuple[float, float]]:
        """Return seconds used and the time of that reading, by container, those that are gone included."""
        for node in self._nodes:
            text = self._cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics/resource")
            for family in text_string_to_metric_families(text):
                if family.name != "container_cpu_usage_seconds":
                    continue
                for sample in family.samples:
                    labels = sample.labels
                    key = labels["namespace"], labels["pod"], labels["container"]
                    self._read[key] = sample.value, float(sample.timestamp)  # type: ignore[arg-type] # a kubelet states it
        return dict(self._read)

    async def settled(self) -> dict[Container, tuple[float, float]]:
        """Wait until the kubelets have read what was used until now, and return `read`."""
        await self._sampled(asyncio.sleep(_SETTLE_SECONDS))
        return await asyncio.to_thread(self.read)

    async def _sampled(self, work: Awaitable[Result]) -> Result:
        """Read now and then while `work` is done, so that containers that end meanwhile are counted."""

        async def sample() -> None:
            while True:
                await asyncio.to_thread(self.read)
                await asyncio.sleep(_SAMPLE_SECONDS)

        sampling = asyncio.create_task(sample())
        try:
            return await work
        finally:
            sampling.cancel()

    async def idle(self, seconds: float) -> dict[Container, float]:
        """Return the CPU that each container takes at rest, in seconds a second."""
        before = await self.settled()
        await asyncio.sleep(seconds)
        after = await asyncio.to_thread(self.read)
        rates = {}
        for key, (used, at) in after.items():
            if key in before and at > before[key][1]:
                rates[key] = (used - before[key][0]) / (at - before[key][1])
        return rates

    async def of(self, work: Awaitable[Work], idle: Mapping[Container, float]) -> Work:
        """Do `work`, and note in it the CPU that it took, by part and by what runs in the platform's pods."""
        before = await asyncio.to_thread(self.read)
        done = await self._sampled(work)
        after = await self.settled()
        done.cpu_ms, detail = dict.fromkeys(PARTS, 0.0), defaultdict[str, float](float)
        for key, (used, at) in after.items():
            was, since = before.get(key, (0.0, at))
            spent = used - (was if was <= used else 0.0) - idle.get(key, 0.0) * (at - since)
            milliseconds = spent * 1000 / done.count
            part = part_of(key)
            done.cpu_ms[part] += milliseconds
            if part in ("platform", "eventing"):
                detail[_service_of(key)] += milliseconds
        done.facts["containers_ms"] = dict(detail)
        return done


def part_of(container: Container) -> str:
    """Return which of PARTS a container belongs to."""
    namespace, pod, name = container
    if name == "queue-proxy":
        return "queue-proxy"
    if name == "istio-proxy" and not pod.startswith("istio-ingressgateway"):
        return "sidecar"
    if namespace == PLATFORM:
        return "store" if pod.startswith(_STORES) else "platform"
    if pod.startswith("activator-"):
        return "activator"
    if pod.startswith("istio-ingressgateway-"):
        return "ingress"
    if namespace in ("knative-eventing", "kafka"):
        return "eventing"
    return "node" if namespace == "kube-system" else "control planes"


def _service_of(container: Container) -> str:
    """Return what a pod runs: its name without what its Deployment adds."""
    pod = container[1]
    return pod.rsplit("-", 2)[0].removesuffix("-deployment").rstrip("0123456789").rstrip("-")


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    cluster = Cluster()
    meter = CpuMeter(cluster)
    admin = await asyncio.to_thread(cluster.secret, "admin")
    async with Shop(os.environ["E2E_BASE_URL"], os.environ["E2E_HOST"], connections=200) as shop:
        bench = _Bench(shop, await shop.login(admin["email"], admin["password"]), options.callers)
        await bench.prepare(options.orders)
        _say("warm")
        idle = await meter.idle(options.idle)
        _say(f"at rest: {sum(idle.values()) * 1000:.0f} ms of CPU a second")
        works = {}
        for name, work in bench.works(options.orders, options.seconds):
            measured = await meter.of(work(), idle)
            if name == "order":
                measured.facts |= await bench.outcome()
            works[name] = asdict(measured)
            _say(f"{name}: {measured.rate:.1f}/s, {sum(measured.cpu_ms.values()):.1f} ms of CPU each")
    return {"name": options.name, "at": datetime.now().astimezone().isoformat(), "works": works}


def _say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


class _Bench:
    """The work that is measured, by callers that ask again as soon as they have an answer."""

    def __init__(self, shop: Shop, admin: Person, callers: int) -> None:
        self._shop = shop
        self._admin = admin
        self._callers = callers
        self._product = ""
        self._people: list[Person] = []
        self._placed: list[tuple[Person, str]] = []
        self._latencies: list[float] = []

    async def prepare(self, orders: int) -> None:
        """Make a product and customers, and have a tenth of the orders placed, so that all is started."""
        self._product = await make_product(self._shop, self._admin, 10 * orders + 1000)
        warm = max(orders // 10, self._callers)
        for _ in range(warm + -(-orders // ORDERS_EACH)):
            self._people.append(await self._shop.register())
        await self._place(warm, 1)
        await self._quiet()
        del self._people[:warm]
        self._placed.clear()
        self._latencies.clear()

    def works(self, orders: int, seconds: float) -> Iterator[tuple[str, Callable[[], Awaitable[Work]]]]:
        """Yield each kind of work by its name."""
        yield "order", lambda: self._orders(orders)
        yield "event", self._events
        yield "GET product", lambda: self._reads(f"/v1/products/{self._product}", seconds)
        yield "GET products", lambda: self._reads("/v1/products?limit=20", seconds)
        if grpc_ingress() is not None:
            yield "gRPC GetProduct", lambda: self._rpcs(seconds)

    async def _place(self, orders: int, each: int) -> float:
        """Place orders; return how long it took."""
        jobs = iter([person for person in self._people for _ in range(each)][:orders])

        async def caller() -> None:
            for person in jobs:
                began = time.perf_counter()
                order = await self._shop.order(person, {self._product: 1})
                self._latencies.append(time.perf_counter() - began)
                self._placed.append((person, order["id"]))

        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(self._callers)))
        return time.perf_counter() - start

    async def _quiet(self) -> None:
        """Wait until the last orders are final, by one request every second."""
        deadline = time.monotonic() + 300
        for person, order_id in reversed(self._placed[-3 * self._callers :]):
            while True:
                order = await self._shop.patiently("GET", f"/v1/orders/{order_id}", who=person)
                if order["status"] in FINAL or time.monotonic() > deadline:
                    break
                await asyncio.sleep(1)

    async def _orders(self, orders: int) -> Work:
        took = await self._place(orders, ORDERS_EACH)
        await self._quiet()
        return Work(orders, orders / took, _milliseconds(self._latencies))

    async def outcome(self) -> dict[str, Any]:
        """Return how the orders ended: what their timelines tell."""
        found = [
            await self._shop.patiently("GET", f"/v1/orders/{order_id}", who=person) for person, order_id in self._placed
        ]
        times = [{entry["status"]: _seconds(entry["at"]) for entry in order["timeline"]} for order in found]
        confirmed = [each for each in times if "CONFIRMED" in each]
        first, last = min(t["PLACED"] for t in times), max(t["CONFIRMED"] for t in confirmed)
        return {
            "confirmed": len(confirmed),
            "to_the_end_per_second": len(confirmed) / (last - first),
            "to_the_end_milliseconds": _milliseconds([t["CONFIRMED"] - t["PLACED"] for t in confirmed]),
        }

    async def _events(self) -> Work:
        """Place orders one after the other: from PLACED to RESERVED are two events, one there and one back."""
        person, took = await self._shop.register(), []
        for _ in range(10):
            order = await self._shop.order(person, {self._product: 1})
            order = await self._shop.settled(person, order["id"], status="CONFIRMED", seconds=60)
            times = {entry["status"]: _seconds(entry["at"]) for entry in order["timeline"]}
            took.append((times["RESERVED"] - times["PLACED"]) / 2)
        return Work(len(took), 1 / (sum(took) / len(took)), _milliseconds(took))

    async def _reads(self, path: str, seconds: float) -> Work:
        async with aiohttp.ClientSession() as session:
            headers = {"host": os.environ["E2E_HOST"]}

            async def call() -> None:
                async with session.get(self._shop.base_url + path, headers=headers) as answer:
                    await answer.read()
                    assert answer.status == 200, answer.status

            return await self._repeat(call, seconds)

    async def _rpcs(self, seconds: float) -> Work:
        ingress = grpc_ingress()
        assert ingress is not None
        async with ingress.channel() as channel:
            stub: Any = products_pb2_grpc.ProductsServiceStub(channel)
            request = pb.GetProductRequest(product_id=self._product)

            async def call() -> None:
                await stub.GetProduct(request, timeout=15)

            return await self._repeat(call, seconds)

    async def _repeat(self, call: Callable[[], Awaitable[None]], seconds: float) -> Work:
        took: list[float] = []
        end = time.perf_counter() + seconds

        async def caller() -> None:
            while (began := time.perf_counter()) < end:
                await call()
                took.append(time.perf_counter() - began)

        await asyncio.gather(*(caller() for _ in range(self._callers)))
        return Work(len(took), len(took) / seconds, _milliseconds(took))


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    """Return the percentiles of latencies."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49] * 1000, "p95": cuts[94] * 1000, "p99": cuts[98] * 1000}


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def markdown(runs: list[dict[str, Any]]) -> str:
    """Return the table: a column for each run."""
    rows = [["work", *(run["name"] for run in runs)]]
    for name in runs[-1]["works"]:
        works = [run["works"].get(name) for run in runs]
        if name == "order":
            rows += [
                ["orders a second, placed", *(_cell(w, lambda w: f"{w['rate']:.1f}") for w in works)],
                [
                    "orders a second, to the end",
                    *(_cell(w, lambda w: f"{w['facts']['to_the_end_per_second']:.1f}") for w in works),
                ],
                [
                    "placed after, p50, p95, p99",
                    *(_cell(w, lambda w: _times(w["milliseconds"])) for w in works),
                ],
                [
                    "confirmed after, p50, p95, p99",
                    *(_cell(w, lambda w: _times(w["facts"]["to_the_end_milliseconds"])) for w in works),
                ],
                ["CPU of an order", *(_cell(w, _total) for w in works)],
                *([f"- {part}", *(_cell(w, _of(part)) for w in works)] for part in PARTS),
            ]
        elif name == "event":
            label = "one event alone, from publish to handled, p50, p95, p99"
            rows.append([label, *(_cell(w, lambda w: _times(w["milliseconds"])) for w in works)])
        else:
            rows += [
                [f"{name}, a second", *(_cell(w, lambda w: f"{w['rate']:.0f}") for w in works)],
                [f"{name}, p50, p95, p99", *(_cell(w, lambda w: _times(w["milliseconds"])) for w in works)],
                [f"{name}, CPU", *(_cell(w, _total) for w in works)],
            ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _cell(work: Mapping[str, Any] | None, show: Callable[[Mapping[str, Any]], str]) -> str:
    return "-" if work is None else show(work)


def _of(part: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda work: f"{work['cpu_ms'][part]:.1f} ms"


def _times(milliseconds: Mapping[str, float]) -> str:
    return ", ".join(f"{each:.0f}" for each in milliseconds.values()) + " ms"


def _total(work: Mapping[str, Any]) -> str:
    return f"**{sum(work['cpu_ms'].values()):.0f} ms**"


if __name__ == "__main__":
    sys.exit(main())
