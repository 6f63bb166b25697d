"""`make load`: loads a platform, and checks its invariants at the end: those of a customer who counts afterwards.

The platform is the one at E2E_BASE_URL (with E2E_HOST, E2E_GRPC_HOST, E2E_ADMIN_EMAIL, E2E_ADMIN_PASSWORD), or one
that is started here. The exit status is 0 if no request failed and every invariant holds; what the platform sheds
(429, or 503, with Retry-After) is counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp

from knative.local.demo.shop import FINAL, Person, Refused, Shop
from tests.e2e.platform import ROOT, LocalPlatform, Platform, given, grpc_ingress

T = TypeVar("T")

SCENARIOS = ("shoppers", "flash-sale", "crawl", "grpc", "watchers", "from-zero")
_PRODUCTS = 20
_PRICE = {"amount": 1990, "currency": "EUR"}
_PLENTY = 1_000_000
_SETTLE_SECONDS = 180.0
_AT_ONCE = 4
_ATTEMPTS = 10


def main() -> int:
    """Load the platform and return the exit status."""
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--scenario", choices=SCENARIOS, default="shoppers")
    parser.add_argument("--rate", type=float, help="arrivals a second; 10, and from-zero about one a minute")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--people", type=int, default=50, help="customers that are registered before")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds that a request may take")
    parser.add_argument("--web", action="store_true", help="show Locust's page at 127.0.0.1:8089 meanwhile")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "load.json")
    parser.add_argument("--python", default=str(ROOT / ".venv-load" / "bin" / "python"), help="where Locust is")
    options = parser.parse_args()
    if options.rate is None:
        options.rate = 0.015 if options.scenario == "from-zero" else 10.0
    platform = given()
    if platform is not None:
        return asyncio.run(_load(platform, options))
    with tempfile.TemporaryDirectory() as folder:
        limits = {"RATE_LIMIT_PER_SECOND": "1000000", "RATE_LIMIT_BURST": "1000000"}
        local = LocalPlatform(Path(folder) / "platform", **limits)
        try:
            local.start()
            return asyncio.run(_load(local, options))
        finally:
            local.stop()


@dataclass
class Prepared:
    """What a load needs, and what the invariants compare with."""

    people: list[Person]
    products: dict[str, int]
    scarce: str
    admin: Person | None


async def _load(platform: Platform, options: argparse.Namespace) -> int:
    async with Shop(platform.base_url, platform.host) as shop:
        prepared = await _prepare(shop, platform, options)
        with tempfile.TemporaryDirectory() as folder:
            plan, result = Path(folder) / "plan.json", Path(folder) / "result.json"
            plan.write_text(json.dumps(_plan(platform, prepared, options)))
            command = [options.python, "-m", "tests.load.generator", str(plan), str(result)]
            generator = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
            if await generator.wait():
                return 1
            measured = json.loads(result.read_text())
        settled_in, broken = await check(shop, prepared, measured["acknowledged"])
    report = {
        "scenario": options.scenario,
        "rate": options.rate,
        "minutes": options.minutes,
        "requests": [vars(row) for row in rows(measured["samples"])],
        "late_ms_p99": percentile(measured["late_ms"], 0.99),
        "orders_acknowledged": len(measured["acknowledged"]),
        "seconds": measured["seconds"],
        "settled_after_seconds": settled_in,
        "broken": broken,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    sys.stdout.write(table(report) + "\n")
    failed = any(row["errors"] for row in report["requests"])
    return 1 if failed or broken else 0


async def _prepare(shop: Shop, platform: Platform, options: argparse.Namespace) -> Prepared:
    """Register the customers, and as an administrator add products, of which one will be sold out half way."""
    people: list[Person] = []
    for start in range(0, options.people, _AT_ONCE):
        number = min(_AT_ONCE, options.people - start)
        people += await asyncio.gather(*(_patiently(shop.register) for _ in range(number)))
    if not platform.admin_password:
        catalogue = await shop.all("/v1/products")
        return Prepared(people, {it["id"]: 0 for it in catalogue[:_PRODUCTS]}, catalogue[0]["id"], None)
    admin = await shop.login(platform.admin_email, platform.admin_password)
    half = max(1, int(options.rate * options.minutes * 60 / 2))
    products = {await _product(shop, admin, _PLENTY): _PLENTY for _ in range(_PRODUCTS)}
    scarce = await _product(shop, admin, half)
    return Prepared(people, {**products, scarce: half}, scarce, admin)


async def _patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Make an attempt again while the platform is busy or does not answer."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return await attempt()
        except Refused as refused:
            if refused.status not in (429, 503, 504):
                raise
            await asyncio.sleep(refused.retry_after)
        except (OSError, aiohttp.ClientError):
            await asyncio.sleep(1.0)
    return await attempt()


async def _product(shop: Shop, admin: Person, on_hand: int) -> str:
    sku = f"LOAD-{uuid4().hex[:12].upper()}"
    body = {"sku": sku, "name": f"Load {sku}", "category": "load", "price": _PRICE, "active": True}
    made = await shop.call("POST", "/v1/products", who=admin, json=body)
    await shop.call("PUT", f"/v1/products/{made['id']}/stock", who=admin, json={"on_hand": on_hand})
    return str(made["id"])


def _plan(platform: Platform, prepared: Prepared, options: argparse.Namespace) -> dict[str, Any]:
    ingress = grpc_ingress()
    if isinstance(platform, LocalPlatform):
        parts = platform.state()["parts"]
        grpc = {name: parts[name]["grpc"] for name in ("products", "orders")}
    else:
        url = urlsplit(platform.base_url)
        grpc = dict.fromkeys(("products", "orders"), f"{url.hostname}:{url.port or 80}")
    return {
        "base_url": platform.base_url,
        "host": platform.host,
        "grpc": grpc,
        "grpc_host": ingress.host if ingress else "",
        "scenario": options.scenario,
        "rate": options.rate,
        "seconds": options.minutes * 60,
        "timeout": options.timeout,
        "web": ["127.0.0.1", 8089] if options.web else None,
        "people": [person.tokens for person in prepared.people],
        "products": [key for key in prepared.products if key != prepared.scarce] or [prepared.scarce],
        "scarce": prepared.scarce,
    }


async def check(shop: Shop, prepared: Prepared, acknowledged: Sequence[tuple[int, str]]) -> tuple[float, list[str]]:
    """Return the seconds until every order was decided, and the invariants that do not hold.

    Every acknowledged order exists and is final. With an administrator: exactly what stands was paid, and exactly that
    is missing in stock.
    """
    began = time.monotonic()
    orders: dict[str, Any] = {}
    people = [await _signed_in(shop, person) for person in prepared.people]
    waiting = list(range(len(people)))
    while waiting and time.monotonic() < began + _SETTLE_SECONDS:
        lists = [await _patiently(partial(shop.all, "/v1/orders", people[number])) for number in waiting]
        orders |= {order["id"]: order for found in lists for order in found}
        waiting = [
            number
            for number, found in zip(waiting, lists, strict=True)
            if not all(order["status"] in FINAL for order in found)
        ]
        if waiting:
            await asyncio.sleep(1.0)
    settled = time.monotonic() - began
    broken = [f"order {key} was acknowledged and is lost" for _, key in acknowledged if key not in orders]
    broken += [f"order {key} is still {it['status']}" for key, it in orders.items() if it["status"] not in FINAL]
    if prepared.admin is not None and not broken:
        admin = await _signed_in(shop, prepared.admin)
        ledger = await _patiently(partial(shop.all, "/v1/admin/payments/ledger", admin))
        stocks = {key: await _patiently(partial(shop.stock, key)) for key in prepared.products}
        broken += wrong_money(orders, ledger) + wrong_stock(orders, prepared.products, stocks)
    return settled, broken


async def _signed_in(shop: Shop, person: Person) -> Person:
    """Log in again: the load may have taken longer than tokens last."""
    return await _patiently(partial(shop.login, person.email, person.password, person.profile))


def wrong_money(orders: Mapping[str, Any], ledger: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the orders of which not exactly their total was kept if they stand, or anything if they do not."""
    kept: dict[str, int] = defaultdict(int)
    for entry in ledger:
        if entry["outcome"] == "succeeded":
            sign = 1 if entry["kind"] == "charge" else -1
            kept[entry["payment_id"]] += sign * entry["amount"]["amount"]
    broken = []
    for key, order in orders.items():
        wanted = 0 if order["status"] == "CANCELLED" else order["total"]["amount"]
        if (found := kept[f"pay_{key[4:]}"]) != wanted:
            broken.append(f"of order {key} ({order['status']}) {found} is kept, not {wanted}")
    return broken


def wrong_stock(
    orders: Mapping[str, Any], before: Mapping[str, int], after: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Return the products of which not exactly the pieces of orders that stand are missing, or some are reserved."""
    sold: dict[str, int] = defaultdict(int)
    for order in orders.values():
        for line in order["lines"] if order["status"] != "CANCELLED" else ():
            sold[line["product_id"]] += line["quantity"]
    return [
        f"of product {key} {stock['on_hand']} are left and {stock['reserved']} reserved, not {before[key] - sold[key]}"
        for key, stock in after.items()
        if (stock["on_hand"], stock["reserved"]) != (before[key] - sold[key], 0)
    ]


@dataclass
class Row:
    """The requests of one kind. Latencies are those of successful requests, in milliseconds."""

    name: str
    ok: int = 0
    shed: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    longest: float = 0.0


def rows(samples: Sequence[tuple[str, float, str]]) -> list[Row]:
    """Return a row for each kind of request; a sample is name, milliseconds, and `ok`, `shed` or an error."""
    found: dict[str, Row] = {}
    latencies: dict[str, list[float]] = defaultdict(list)
    for name, milliseconds, outcome in samples:
        row = found.setdefault(name, Row(name))
        if outcome == "ok":
            row.ok += 1
            latencies[name].append(milliseconds)
        elif outcome == "shed":
            row.shed += 1
        else:
            row.errors[outcome] = row.errors.get(outcome, 0) + 1
    for name, row in found.items():
        ordered = sorted(latencies[name])
        row.p50, row.p95, row.p99 = (percentile(ordered, share) for share in (0.5, 0.95, 0.99))
        row.longest = percentile(ordered, 1.0)
    return list(found.values())


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the ordered values does not exceed; 0 if there are none."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0.0


def table(report: Mapping[str, Any]) -> str:
    """Return the report as text."""
    lines = [
        f"{report['scenario']}: {report['rate']:g} arrivals/s for {report['minutes']:g} min",
        f"{'':34}{'ok':>8}{'shed':>7}{'errors':>8}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}  ms",
    ]
    for row in report["requests"]:
        numbers = f"{row['ok']:>8}{row['shed']:>7}{sum(row['errors'].values()):>8}"
        times = "".join(f"{row[name]:>9.1f}" for name in ("p50", "p95", "p99", "longest"))
        lines.append(f"{row['name']:34}{numbers}{times}")
        lines += [f"    {count} times {error}" for error, count in row["errors"].items()]
    rate = report["orders_acknowledged"] / report["seconds"]
    lines.append(f"{report['orders_acknowledged']} orders acknowledged, {rate:.1f} a second;")
    lines.append(f"all decided {report['settled_after_seconds']:.1f} s after the last answer")
    lines.append(f"the generator was late by {report['late_ms_p99']:.1f} ms (p99)")
    if report["late_ms_p99"] > 1000:
        lines.append("It could not keep the rate: the latencies say more about it than about the platform.")
    lines += [f"BROKEN: {text}" for text in report["broken"][:20]] or ["Every invariant holds."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
