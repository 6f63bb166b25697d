"""`make capacity`: a model of what 100, 1,000 and 10,000 orders a second need, and its errors against measurements.

It is linear: a part needs the CPU time of an order times the orders, and a share of it stays free. What an order costs
comes from measurements: those that are committed beside this file, and JSON of `make bench-cluster` and `make bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from knative.local import manifests as m
from tests.bench.footprint import Footprint, measure
from tests.bench.knee import PAGE
from tests.bench.report import write_table
from tests.bench.tune import BASE, UTILIZATION

MEASURED = Path(__file__).with_suffix(".json")
RATES = (100, 1_000, 10_000)
_DAY, _DAYS_OF_GUARDS, _DAYS_OF_EVENTS, _MONTH_HOURS = 86_400, 7, 7, 730
_INSTANCES = 3
"""Of PostgreSQL and of Kafka, as in overlays/onprem: each keeps everything."""
_PARTITIONS = 10
"""As in overlays/onprem."""


@dataclass(frozen=True)
class Run:
    """A measured platform: CPU milliseconds of an order by part, orders a second to the end, and on how many cores.

    `services` divides the part `platform`. Runs of one `place` have the same machine, load and callers beside them.
    """

    name: str
    place: str
    parts: Mapping[str, float]
    rate: float
    cores: int = 2
    services: Mapping[str, float] = field(default_factory=dict)
    source: str = ""

    @property
    def cpu_ms(self) -> float:
        """Return the CPU milliseconds of an order."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Assumptions:
    """What is not measured. Prices are in US dollars, storage in GB-months."""

    core_hour: float = 0.05
    gigabyte_month: float = 0.10
    statement_ms: float = 2.0
    pool: int = 4


@dataclass(frozen=True)
class Needs:
    """What a rate of orders needs: cores by part, pods by service, and the rest."""

    rate: float
    cores: Mapping[str, float]
    pods: Mapping[str, int]
    client_connections: int
    server_connections: int
    partitions: int
    store_gb_a_day: float
    wal_gb_a_day: float
    events_gb_a_day: float
    dollars_for_cores: float
    dollars_for_storage: float


def needs(run: Run, footprint: Footprint, rate: float, assumed: Assumptions) -> Needs:
    """Return what `rate` orders a second need, if an order costs what it did in `run`."""
    cores = {part: rate * ms / 1000 / UTILIZATION for part, ms in run.parts.items() if ms > 0}
    pods = {name: max(1, math.ceil(rate * ms / 1000 / UTILIZATION)) for name, ms in run.services.items()}
    statements = rate * footprint.statements
    kept = rate * _DAY * sum(footprint.kept_bytes.values()) / 1e9
    guards = rate * _DAY * footprint.guard_bytes / 1e9
    events = rate * _DAY * footprint.event_bytes / 1e9
    stored = _INSTANCES * (30 * kept + _DAYS_OF_GUARDS * guards + _DAYS_OF_EVENTS * events)
    return Needs(
        rate=rate,
        cores=cores,
        pods=pods,
        client_connections=assumed.pool * sum(count for name, count in pods.items() if name != "gateway"),
        server_connections=math.ceil(statements * assumed.statement_ms / 1000 / UTILIZATION),
        partitions=max(_PARTITIONS, 2 * math.ceil(cores.get("eventing", 0))),
        store_gb_a_day=kept,
        wal_gb_a_day=rate * _DAY * footprint.wal_bytes / 1e9,
        events_gb_a_day=events,
        dollars_for_cores=sum(cores.values()) * _MONTH_HOURS * assumed.core_hour,
        dollars_for_storage=stored * assumed.gigabyte_month,
    )


@dataclass(frozen=True)
class Check:
    """A measured rate, and what the model says; `fitted` if the model's constant comes from this run."""

    run: Run
    predicted: float
    fitted: bool

    @property
    def error(self) -> float:
        """Return the error as a share of what was measured."""
        return self.predicted / self.run.rate - 1


def checks(runs: Sequence[Run]) -> list[Check]:
    """Return the model's prediction of the orders a second of each run.

    The share of the machine's cores that an order's parts get is unknown: callers, what is at rest, and other work have
    the rest. The first run of a place gives it, and the others are predicted with it.
    """
    shares: dict[str, float] = {}
    found = []
    for run in runs:
        fitted = run.place not in shares
        share = shares.setdefault(run.place, run.rate * run.cpu_ms / 1000 / run.cores)
        found.append(Check(run, share * run.cores * 1000 / run.cpu_ms, fitted))
    return found


def read(path: Path) -> list[Run]:
    """Return the runs in JSON of `make bench-cluster`, of `make bench`, or of this module."""
    report = json.loads(path.read_text())
    if isinstance(report, list):
        samples = {
            f"{row['name']}, {side}": row[side]
            for row in report
            for side in ("floor", "ours")
            if row["name"].startswith("checkout") and row[side]
        }
        return [
            Run(name, "one machine, given", {"all parts": sample["cpu_ms"]}, sample["rate"], source=path.name)
            for name, sample in samples.items()
        ]
    if "runs" in report:
        return [Run(**run) for run in report["runs"]]
    order = report["works"]["order"]
    ours = set(_max_scales())
    services = {name: ms for name, ms in order["facts"]["containers_ms"].items() if name in ours and ms > 0}
    rate = order["facts"]["to_the_end_per_second"]
    source = f"{path.name}, {report['at'][:10]}"
    return [Run(report["name"], "a cluster, given", order["cpu_ms"], rate, services=services, source=source)]


def _max_scales() -> dict[str, int]:
    """Return the largest number of pods of each service by its manifest."""
    found = {}
    for service in m.load(BASE).of(m.SERVING, "Service"):
        annotations = service["spec"]["template"]["metadata"]["annotations"]
        found[m.name_of(service)] = int(annotations["autoscaling.knative.dev/max-scale"])
    return found


def main() -> int:
    """Return 0 once the tables are printed."""
    parser = argparse.ArgumentParser(prog="make capacity", description=__doc__)
    parser.add_argument("--from", dest="sources", type=Path, nargs="*", default=[], help="more runs; the last counts")
    parser.add_argument("--footprint", type=int, metavar="ORDERS", help="measure first what an order leaves behind")
    for name, value in asdict(Assumptions()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--no-page", action="store_true", help="leave docs/capacity.md as it is")
    options = parser.parse_args()
    if options.footprint:
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(measure(Path(folder), options.footprint))
        report = json.loads(MEASURED.read_text())
        MEASURED.write_text(json.dumps(report | {"footprint": asdict(found)}, indent=2) + "\n")
    footprint = Footprint(**json.loads(MEASURED.read_text())["footprint"])
    runs = [run for path in (MEASURED, *options.sources) for run in read(path)]
    run = [run for run in runs if run.services][-1]
    assumed = Assumptions(**{name: getattr(options, name) for name in asdict(Assumptions())})
    tables = {
        "cost": costs(runs),
        "footprint": footprints(footprint),
        "model": model([needs(run, footprint, rate, assumed) for rate in RATES], run),
        "model-check": checked(checks(runs)),
    }
    for name, table in tables.items():
        print(table, end="\n\n")
        if not options.no_page:
            write_table(PAGE, table, name, "from the measurements named above", "Computed")
    return 0


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, *rows)]
    return "\n".join([lines[0], "|---" * len(titles) + "|", *lines[1:]])


def costs(runs: Sequence[Run]) -> str:
    """Return the orders a second that a core does, by run."""
    rows = [(run.name, f"{run.cpu_ms:.1f} ms", f"{1000 / run.cpu_ms:.1f}", run.source) for run in runs]
    return _table(("platform", "CPU of an order", "orders/s a core", "from"), rows)


def checked(found: Sequence[Check]) -> str:
    """Return the table of predictions."""
    rows = [
        (
            it.run.name,
            f"{it.run.cpu_ms:.1f} ms",
            f"{it.run.rate:.1f}",
            f"{it.predicted:.1f}",
            "fitted" if it.fitted else f"{it.error:+.0%}",
        )
        for it in found
    ]
    return _table(("platform", "CPU of an order", "orders/s measured", "predicted", "error"), rows)


def footprints(footprint: Footprint) -> str:
    """Return the table of what an order leaves behind."""
    kept = sum(footprint.kept_bytes.values())
    by_store = ", ".join(f"{name} {each:,.0f}" for name, each in footprint.kept_bytes.items() if each >= 1)
    rows = [
        ("bytes that stay", f"{kept:,.0f} ({by_store})"),
        ("bytes of guards against repetition, for seven days", f"{footprint.guard_bytes:,.0f}"),
        ("bytes of WAL", f"{footprint.wal_bytes:,.0f}"),
        ("statements, those of sweeps and the outbox included", f"{footprint.statements:.1f}"),
        ("events, and their bytes together", f"{footprint.events}, {footprint.event_bytes:,.0f}"),
    ]
    return _table(("of an order", f"measured on {footprint.measured}"), rows)


def model(found: Sequence[Needs], run: Run) -> str:
    """Return the table of needs, a column for each rate; a number of pods above `max-scale` is bold."""
    most = _max_scales()

    def pods(name: str, count: int) -> str:
        return f"**{count}**" if count > most.get(name, count) else str(count)

    rows = [
        ("cores", *(f"{sum(it.cores.values()):,.0f}" for it in found)),
        *((f"- {part}", *(f"{it.cores[part]:,.1f}" for it in found)) for part in found[0].cores),
        *((f"pods of {name}", *(pods(name, it.pods[name]) for it in found)) for name in found[0].pods),
        ("connections of pods to the pooler, at most", *(f"{it.client_connections:,}" for it in found)),
        ("connections of the pooler to PostgreSQL", *(f"{it.server_connections:,}" for it in found)),
        ("partitions", *(f"{it.partitions}" for it in found)),
        ("store, GB a day", *(f"{it.store_gb_a_day:,.1f}" for it in found)),
        ("WAL, GB a day", *(f"{it.wal_gb_a_day:,.1f}" for it in found)),
        ("events, GB a day", *(f"{it.events_gb_a_day:,.1f}" for it in found)),
        ("cores, $ a month", *(f"{it.dollars_for_cores:,.0f}" for it in found)),
        ("storage after a month, $ a month", *(f"{it.dollars_for_storage:,.0f}" for it in found)),
        (
            "$ for a thousand orders, at that rate all month",
            *(
                f"{1000 * (it.dollars_for_cores + it.dollars_for_storage) / (it.rate * 3600 * _MONTH_HOURS):.4f}"
                for it in found
            ),
        ),
    ]
    return _table((f"orders a second ({run.name})", *(f"{it.rate:,.0f}" for it in found)), rows)


if __name__ == "__main__":
    sys.exit(main())
