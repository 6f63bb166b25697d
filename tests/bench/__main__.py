"""`make bench`: measures, prints a table, and writes it as JSON and into docs/benchmarks.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.bench import rows
from tests.bench.broker import broker
from tests.bench.measure import ROOT, Sample
from tests.bench.report import markdown, write_table
from tests.bench.row import Row
from tests.bench.shop import BenchShop


def main() -> int:
    """Return 0 once everything is measured, even if a budget does not hold: a timing is no test."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measured stretch")
    parser.add_argument("--rounds", type=int, default=3, help="floor and ours in turn, so many times")
    parser.add_argument("--orders", type=int, default=600, help="checkouts")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json")
    parser.add_argument("--tracing", action="store_true", help="only what tracing costs; not for the page")
    parser.add_argument("--checkout", action="store_true", help="only what an order costs; not for the page")
    parser.add_argument("--postgres", action="store_true", help="only what an order costs on PostgreSQL and SQLite")
    parser.add_argument("--no-page", action="store_true", help="leave docs/benchmarks.md as it is")
    options = parser.parse_args()
    rows.compile_sources()
    try:
        measured = asyncio.run(_chosen(options))
    except KeyboardInterrupt:
        return 130
    table = markdown(measured)
    print(table)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps([asdict(row) | {"met": row.met} for row in measured], indent=2) + "\n")
    if not (options.no_page or options.tracing or options.checkout):
        name = "postgres" if options.postgres else "bench"
        write_table(ROOT / "docs/benchmarks.md", table, name, "two cores, 32 callers")
    return 0


async def _chosen(options: argparse.Namespace) -> list[Row]:
    if not (options.tracing or options.postgres or options.checkout):
        return await _measure(options)
    with tempfile.TemporaryDirectory() as name:
        if options.checkout:
            async with BenchShop(Path(name)) as shop:
                return [await _order(shop, options.orders)]
        measure = rows.tracing if options.tracing else rows.postgres
        return [await measure(Path(name), max(32, options.orders // 2), options.rounds)]


async def _measure(options: argparse.Namespace) -> list[Row]:
    measured: list[Row] = []

    def done(*found: Row) -> None:
        for row in found:
            measured.append(row)
            print(f"  measured: {row.name}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with BenchShop(folder) as shop:
            done(await rows.unary_rpc(shop, options.seconds, options.rounds))
            done(await rows.gateway_get(shop, options.seconds, options.rounds))
            events = await rows.event(shop, options.seconds, options.rounds)
            done(events)
            assert events.floor is not None
            order = await _order(shop, options.orders)
            done(order)
            done(rows.signatures(order.ours.cpu_ms, options.rounds))
            largest = max(shop.at_rest, key=lambda part: shop.at_rest[part])
            done(_memory("memory at rest, the largest part", shop.at_rest[largest], 110, largest))
            done(_memory("memory at rest, the whole platform", sum(shop.at_rest.values()), 800, ""))
        done(await rows.tracing(folder / "traced", max(32, options.orders // 2), options.rounds))
        done(await broker(folder, options.seconds, options.rounds, events.floor.rate))
        done(*await rows.starts(folder, max(5, options.rounds)))
    return measured


async def _order(shop: BenchShop, orders: int) -> Row:
    sample, facts = await shop.checkout(orders)
    return Row("checkout, whole saga, durable", sample, facts=facts, unit="orders/s", note=_facts(facts))


def _facts(facts: dict[str, object]) -> str:
    adds_up = "yes" if facts["stock_adds_up"] else "NO"
    return f"{facts['confirmed']} of {facts['orders']} confirmed; stock adds up: {adds_up}"


def _memory(name: str, megabytes: float, budget: float, note: str) -> Row:
    ours = Sample(megabytes, 0, megabytes)
    return Row(name, ours, None, megabytes, budget, at_least=False, unit="MB", note=note)


if __name__ == "__main__":
    sys.exit(main())
