"""The stores of one size: filled once, opened by each worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from functions.runtime.clock import SystemClock
from functions.runtime.store.dynamodb.client import Connection, Database, make_client
from functions.runtime.store.dynamodb.store import DynamoDBStore
from functions.runtime.store.dynamodb.tables import create
from functions.runtime.store.sqlite.store import SQLiteStore
from tests.bench.scale.fill import MAPPINGS, Sink, fill
from tests.bench.scale.shop import Size
from tests.bench.scale.sinks import DynamoDBSink, SQLiteSink
from tests.bench.scale.work import Workload


def fill_sqlite(folder: Path, size: Size) -> None:
    """Fill the folder unless it is filled already."""
    _fill(folder, size, lambda name: SQLiteSink(folder / f"{name}.db"))


def open_sqlite(clock: str, folder: Path) -> Workload:
    """Open the stores that `fill_sqlite` filled; costs are seconds of CPU time (the kernel's included) or wall time."""
    stores = {
        name: SQLiteStore(folder / f"{name}.db", mappings, SystemClock())
        for name, mappings in MAPPINGS.items()
    }
    meter = {"cpu": time.process_time, "wall": time.perf_counter}[clock]
    return Workload(stores, folder / "sample.json", meter)


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
