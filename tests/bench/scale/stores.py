"""The stores of one size: filled once, opened by each worker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from functions.runtime.clock import SystemClock
from functions.runtime.store.dynamodb.client import Connection, Database, make_client
from functions.runtime.store.dynamodb.store import DynamoDBStore
from functions.runtime.store.dynamodb.tables import create
from functions.runtime.store.postgres.client import Connection as PostgresConnection
from functions.runtime.store.postgres.client import postgres_url
from functions.runtime.store.postgres.local import Urls
from functions.runtime.store.postgres.migrate import Settings, migrate
from functions.runtime.store.postgres.store import PostgresStore
from functions.runtime.store.sqlite.store import SQLiteStore
from tests.bench.scale.fill import MAPPINGS, Sink, fill
from tests.bench.scale.shop import Size
from tests.bench.scale.sinks import DynamoDBSink, PostgresSink, SQLiteSink
from tests.bench.scale.work import Workload


def fill_sqlite(folder: Path, size: Size) -> None:
    """Fill the folder unless it is filled already."""
    _fill(folder, size, lambda name: SQLiteSink(folder / f"{name}.db"))


def open_sqlite(clock: str, folder: Path) -> Workload:
    """Open the stores that `fill_sqlite` filled; costs are seconds of CPU time (the kernel's included) or wall time."""
    stores = {name: SQLiteStore(folder / f"{name}.db", mappings, SystemClock()) for name, mappings in MAPPINGS.items()}
    meter = {"cpu": time.process_time, "wall": time.perf_counter}[clock]
    return Workload(stores, folder / "sample.json", meter)


def fill_postgres(urls: Urls, folder: Path, size: Size) -> None:
    """Fill schemas that are named after the folder."""

    def sink(name: str) -> Sink:
        schema = f"{folder.name}_{name}"
        asyncio.run(migrate(Settings(store_url=urls.admin), [f"{folder.name}-{name}"], lambda _: None))
        return PostgresSink(urls.admin, schema)

    _fill(folder, size, sink)


def open_postgres(urls: Urls, server: int, folder: Path) -> Workload:
    """Open the schemas that `fill_postgres` filled; costs are seconds of CPU time of this process and the server's.

    `server` is the server's process id.
    """
    address = postgres_url(urls.admin)
    connection = PostgresConnection(address.url, address.user or "", lambda: None, timeout=60)
    stores = {
        name: PostgresStore(f"{folder.name}_{name}", mappings, SystemClock(), connection)
        for name, mappings in MAPPINGS.items()
    }
    return Workload(stores, folder / "sample.json", lambda: time.process_time() + _cpu_of_children(server))


def _cpu_of_children(process: int) -> float:
    """Return the CPU seconds of a process's running children, by Linux's scheduler."""
    nanoseconds = 0
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        with contextlib.suppress(OSError):
            nanoseconds += int(Path(f"/proc/{child}/schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def fill_dynamodb(url: str, folder: Path, size: Size) -> None:
    """Fill tables that are named after the folder."""
    client = make_client(_patient(url))

    def sink(name: str) -> Sink:
        table = f"{folder.name}-{name}"
        create(client, table)
        return DynamoDBSink(client, table)

    _fill(folder, size, sink)


def open_dynamodb(url: str, folder: Path) -> Workload:
    """Open the tables that `fill_dynamodb` filled; costs are capacity units of reads and writes."""
    units = [0.0]
    connection = _patient(url)
    stores = {
        name: DynamoDBStore(
            f"{folder.name}-{name}",
            mappings,
            SystemClock(),
            connection,
            database=Database(connection, make=partial(_counting, units)),
        )
        for name, mappings in MAPPINGS.items()
    }
    return Workload(stores, folder / "sample.json", lambda: units[0])


def _patient(url: str) -> Connection:
    return Connection(url, timeout=30, read_timeout=30)  # patient, because two cores do all the work


def _fill(folder: Path, size: Size, sink: Callable[[str], Sink]) -> None:
    sample = folder / "sample.json"
    if not sample.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fill(sink, size, sample)


def _counting(units: list[float], connection: Connection) -> Any:
    """Return a client that adds the capacity units that DynamoDB reports for each call to `units`."""
    client = make_client(connection)

    def ask(params: dict[str, Any], model: Any, **_: Any) -> None:
        if "ReturnConsumedCapacity" in model.input_shape.members:
            params["ReturnConsumedCapacity"] = "TOTAL"

    def add(parsed: dict[str, Any], **_: Any) -> None:
        consumed = parsed.get("ConsumedCapacity", [])
        for one in consumed if isinstance(consumed, list) else [consumed]:
            units[0] += one["CapacityUnits"]

    client.meta.events.register("before-parameter-build.dynamodb", ask)
    client.meta.events.register("after-call.dynamodb", add)
    return client
