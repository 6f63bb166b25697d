"""A running platform for the rows that need more than one part, and the measured checkout."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from events.service_keys import PrivateKey
from knative.local.demo.shop import Person, Shop
from tests.bench.measure import CALLERS, Sample
from tests.e2e.platform import LocalPlatform
from tests.signing import local_key


async def make_product(shop: Shop, admin: Person, on_hand: int) -> str:
    """Create a product with stock, and return its id."""
    body = {
        "sku": f"BENCH-{on_hand}-{time.time_ns()}",
        "name": "Guji Natural, 250 g",
        "description": "Single-origin coffee from the Guji highlands of Ethiopia.",
        "category": "coffee",
        "price": {"amount": 1190, "currency": "EUR"},
    }
    product = await shop.call("POST", "/v1/products", who=admin, json=body)
    path = f"/v1/products/{product['id']}/stock"
    await shop.call("PUT", path, who=admin, json={"on_hand": on_hand})
    return str(product["id"])


class Part:
    """A part of the platform, measured as `measure.Child` is."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_seconds(self) -> float:
        """Return the user and system time used so far."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Return the resident memory in megabytes."""
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class PostgresPart(Part):
    """The server that `--store postgres` runs, with its processes: those that run and those that have ended."""

    def cpu_seconds(self) -> float:
        """Return the user and system time used so far."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        return own + sum(child.cpu_seconds() for child in self._children())

    def memory_mb(self) -> float:
        """Return the resident memory in megabytes, that which the processes share counted once for each."""
        return super().memory_mb() + sum(child.memory_mb() for child in self._children())

    def _children(self) -> list[Part]:
        pids = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        return [Part(int(pid)) for pid in pids]


class BenchShop:
    """A platform with a folder of its own, one product, and a customer's token."""

    def __init__(self, folder: Path, *, store: str = "sqlite", **environ: str) -> None:
        # All callers have one address: the limits are raised, so that the work is measured and not the limits.
        limits = {"RATE_LIMIT_PER_SECOND": "1000000", "RATE_LIMIT_BURST": "1000000"}
        limits |= {"REGISTRATIONS_PER_ADDRESS": "1000000", "REGISTRATIONS_IN_ALL": "1000000"}
        options = ("--no-console", "--store", store)
        self._platform = LocalPlatform(folder / "platform", *options, **limits, DATABASE_URL="", **environ)
        self.product = ""
        self.token = ""
        self.at_rest: dict[str, float] = {}

    @property
    def base_url(self) -> str:
        """Return the URL of the gateway."""
        return self._platform.base_url

    def key(self, service: str) -> PrivateKey:
        """Return the private key of a service."""
        return local_key(self._platform.folder, service)

    async def __aenter__(self) -> Self:
        """Start the platform, and record the memory of each part before any work."""
        await asyncio.to_thread(self._platform.start)
        parts = self._platform.state()["parts"]
        self.at_rest = {name: Part(part["pid"]).memory_mb() for name, part in parts.items()}
        async with Shop(self.base_url) as shop:
            self.admin = await shop.login(self._platform.admin_email, self._platform.admin_password)
            self.person = await shop.register()
            self.product = await make_product(shop, self.admin, 0)
            self.token = str(self.person.tokens["access_token"])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the platform."""
        await asyncio.to_thread(self._platform.stop)

    def child(self, part: str) -> Any:
        """Return a part to measure."""
        return Part(self._platform.pid(part))

    def environ(self, part: str) -> dict[str, str]:
        """Return the environment that a part runs with."""
        entries = Path(f"/proc/{self._platform.pid(part)}/environ").read_text().split("\0")
        return dict(entry.split("=", 1) for entry in entries if entry)

    def _parts(self) -> list[Part]:
        """Return all parts, and the private database if there is one."""
        parts = [Part(part["pid"]) for part in self._platform.state()["parts"].values()]
        with suppress(FileNotFoundError):
            lines = (self._platform.folder / "postgres/data/postmaster.pid").read_text().split()
            parts.append(PostgresPart(int(lines[0])))
        return parts

    def address(self, part: str) -> str:
        """Return the gRPC address of a part."""
        return str(self._platform.state()["parts"][part]["grpc"])

    def url(self, part: str) -> str:
        """Return the URL at which a part receives events."""
        return f"{self._platform.state()['parts'][part]['url']}/"

    async def checkout(self, orders: int) -> tuple[Sample, dict[str, Any]]:
        """Place `orders` orders from 32 callers, follow each to its end, and check the invariants.

        The sample's rate is in orders a second.
        """
        async with Shop(self.base_url) as shop:
            product = await make_product(shop, self.admin, orders)
            who = await shop.register()
            left = iter(range(orders))
            parts = self._parts()
            cpu, start = sum(part.cpu_seconds() for part in parts), time.perf_counter()
            bought = await asyncio.gather(*[_buy(shop, who, product, left) for _ in range(CALLERS)])
            stock = await _sold(shop, product)
            took = time.perf_counter() - start
            spent = sum(part.cpu_seconds() for part in parts) - cpu
            finals = await shop.all("/v1/orders", who)
            confirmed = sum(order["status"] == "CONFIRMED" for order in finals)
            facts = {
                "orders": sum(map(len, bought)),
                "confirmed": confirmed,
                "errors": orders - confirmed,
                "stock_adds_up": stock == (0, 0),
            }
            memory = sum(part.memory_mb() for part in parts)
            return Sample(orders / took, spent * 1000 / orders, memory), facts


async def _buy(shop: Shop, who: Person, product: str, left: Any) -> list[str]:
    return [(await shop.order(who, {product: 1}))["id"] for _ in left]


async def _sold(shop: Shop, product: str) -> tuple[int, int]:
    """Return the stock on hand and reserved once all of it is sold, or after two minutes.

    Products commits a sale after the order was confirmed. Lists of orders would cost as much as the orders themselves.
    """
    deadline = time.monotonic() + 120
    while True:
        stock = await shop.stock(product)
        if (stock["on_hand"], stock["reserved"]) == (0, 0) or time.monotonic() > deadline:
            return stock["on_hand"], stock["reserved"]
        await asyncio.sleep(0.1)
