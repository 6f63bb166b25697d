"""`make bench-scale`: fills a small and a large store, and measures the same use cases on both in turn."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from functions.runtime.store.dynamodb.local import CREDENTIALS, DynamoDBLocal
from functions.runtime.store.postgres.local import PostgresServer
from tests.bench.measure import ROOT, Sample
from tests.bench.report import markdown, write_table
from tests.bench.row import Row
from tests.bench.scale import stores
from tests.bench.scale.shop import Size
from tests.bench.scale.work import OPERATIONS, Workload
from tests.bench.scale.worker import Worker

BUDGET = 1.5
_SMALL = Size(1_000, 1_000, 100)


def main() -> int:
    """Return 0 once everything is measured, even if the budget does not hold: a timing is no test."""
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.data or Path(temporary)
        try:
            tables = {name: _MEASURES[name](folder, options) for name in options.store}
        except KeyboardInterrupt:
            return 130
    for name, table in tables.items():
        print(f"{_TITLES[name]}\n\n{table}\n")
        if not (options.no_page or options.fill_only):
            write_table(ROOT / "docs/benchmarks.md", table, f"scale-{name}", _conditions(name, options))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--store", nargs="+", choices=sorted(_TITLES), default=["sqlite", "dynamodb"])
    parser.add_argument("--orders", type=int, default=1_000_000, help="of the large store on SQLite")
    parser.add_argument("--postgres-orders", type=int, default=1_000_000, help="of the large one on PostgreSQL")
    parser.add_argument("--dynamodb-orders", type=int, default=10_000, help="of the large one on DynamoDB Local")
    parser.add_argument("--products", type=int, help="of a large one on SQLite or PostgreSQL; a tenth of the orders")
    parser.add_argument("--rounds", type=int, default=5, help="small and large in turn, so many times")
    parser.add_argument("--calls", type=int, default=20_000, help="of an operation in a round, at most")
    parser.add_argument("--clock", choices=["cpu", "wall"], default="cpu", help="of SQLite: wall needs a quiet machine")
    parser.add_argument("--data", type=Path, help="keep the filled stores here, for the next time")
    parser.add_argument("--only", default="", help="operations with this in their names")
    parser.add_argument("--fill-only", action="store_true", help="measure nothing")
    parser.add_argument("--no-page", action="store_true", help="leave docs/benchmarks.md as it is")
    return parser


def _sqlite(folder: Path, options: argparse.Namespace) -> str:
    sizes = {"small": _SMALL, "large": _large(options.orders, options.products)}
    for name, size in sizes.items():
        stores.fill_sqlite(folder / name, size)
    return _compared(partial(stores.open_sqlite, options.clock), folder, sizes, options, "us")


def _postgres(folder: Path, options: argparse.Namespace) -> str:
    sizes = {"small": _SMALL, "large": _large(options.postgres_orders, options.products)}
    place = folder / "postgres"
    with PostgresServer(place) as server:
        for name, size in sizes.items():
            stores.fill_postgres(server.urls, place / name, size)
        # setpriv, if it is used, has become the server.
        opened = partial(stores.open_postgres, server.urls, server.process.pid)
        return _compared(opened, place, sizes, options, "us")


def _dynamodb(folder: Path, options: argparse.Namespace) -> str:
    os.environ.update(CREDENTIALS)
    many = options.dynamodb_orders
    sizes = {"few": _SMALL, "many": Size(many, many // 2, many // 10)}
    with DynamoDBLocal() as database, tempfile.TemporaryDirectory() as samples:
        for name, size in sizes.items():
            stores.fill_dynamodb(database.url, Path(samples) / name, size)
        opened = partial(stores.open_dynamodb, database.url)
        return _compared(opened, Path(samples), sizes, options, "units")


_MEASURES = {"sqlite": _sqlite, "postgres": _postgres, "dynamodb": _dynamodb}
_TITLES = {
    "sqlite": "On SQLite, microseconds:",
    "postgres": "On PostgreSQL, microseconds of the client and the server together:",
    "dynamodb": "On DynamoDB Local, capacity units consumed, read and written:",
}


def _large(orders: int, products: int | None = None) -> Size:
    return Size(orders, products or max(_SMALL.products, orders // 10), max(_SMALL.users, orders // 10))


def _compared(
    opened: Callable[[Path], Workload],
    folder: Path,
    sizes: dict[str, Size],
    options: argparse.Namespace,
    unit: str,
) -> str:
    if options.fill_only:
        return ""
    workers = [Worker(opened, folder / name) for name in sizes]
    rows = [_row(name, workers, options, unit) for name in OPERATIONS if options.only in name]
    if unit == "us":
        small, large = (Sample(worker.memory_mb(), 0, 0) for worker in workers)
        ratio = large.rate / small.rate
        rows.append(Row("memory of its own", large, small, ratio, BUDGET, at_least=False, unit="MB"))
    for worker in workers:
        worker.close()
    small_orders, large_orders = (f"at {size.orders:,} orders" for size in sizes.values())
    return markdown(rows, ours=large_orders, floor=small_orders)


def _row(name: str, workers: Sequence[Worker], options: argparse.Namespace, unit: str) -> Row:
    scale, rounds = (1e6, options.rounds) if unit == "us" else (1, 1)
    calls = OPERATIONS[name].calls if unit == "us" else max(1, OPERATIONS[name].calls // 10)
    calls = min(calls, options.calls)
    if rounds > 1:
        for worker in workers:
            worker.measure(name, calls)  # warms up
    pairs = [tuple(scale * worker.measure(name, calls) for worker in workers) for _ in range(rounds)]
    small, large = (Sample(median(pair[side] for pair in pairs), 0, 0) for side in (0, 1))
    ratio = median(large / small if small else 1 + large for small, large in pairs)
    print(f"  {name}: {small.rate:.1f} {large.rate:.1f} {unit}, {ratio:.2f}", file=sys.stderr)
    return Row(name, large, small, ratio, BUDGET, at_least=False, unit=unit)


def _conditions(store: str, options: argparse.Namespace) -> str:
    orders = {"sqlite": options.orders, "postgres": options.postgres_orders}.get(store, options.dynamodb_orders)
    large = _large(orders, options.products)
    if store == "dynamodb":
        return f"{large.orders:,} and {_SMALL.orders:,} orders, one call at a time"
    clock = {"cpu": "CPU time, the kernel's included, without the wait for the disk", "wall": "wall time"}
    return (
        f"{clock[options.clock if store == 'sqlite' else 'cpu']}; {_SMALL.products:,} products and {_SMALL.users:,} "
        f"users beside {_SMALL.orders:,} orders, {large.products:,} and {large.users:,} beside {large.orders:,}; each "
        "thing drawn at random from all, one call at a time, files in the page cache; a cost is the median of the "
        "rounds' means, a ratio that of theirs"
    )


if __name__ == "__main__":
    sys.exit(main())
