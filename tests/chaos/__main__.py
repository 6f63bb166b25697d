"""`make test-chaos`: orders flow while pods of every kind are killed; afterwards nothing is lost and nothing wrong."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from knative.local.demo.shop import Shop
from knative.local.ports import DOMAINS
from tests.attack.cluster import Cluster
from tests.bench.measure import ROOT
from tests.bench.report import write_table
from tests.chaos.cluster import KINDS, STORE, Kind, Operator
from tests.chaos.orders import Attempt, Flow

RECOVERY_SECONDS = 300.0
CUT_SECONDS = 20.0
_REST_SECONDS = 1.0


@dataclass
class Felt:
    """A fault, and how it was felt: requests that failed until the next one, and seconds until all was well again."""

    name: str
    kills: int
    failed: int
    answered_after: float
    confirmed_after: float | None


def main() -> int:
    """Return 0 if nothing is lost and nothing is wrong."""
    parser = argparse.ArgumentParser(prog="make test-chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=2.0, help="orders a second")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--settle", type=float, default=1200.0, help="seconds within which all must be final")
    parser.add_argument("--only", default="", help="only faults whose name contains this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="in-memory broker", help="of this configuration, in the table")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "chaos.json")
    parser.add_argument("--page", nargs="?", const="chaos", help="write this table of docs/benchmarks.md (chaos-kafka)")
    options = parser.parse_args()
    missing = [name for name in ("KUBECONFIG", "E2E_BASE_URL", "E2E_HOST") if not os.environ.get(name)]
    if missing:
        parser.error(f"set {', '.join(missing)}")
    random.seed(options.seed)
    felt, violations, facts = asyncio.run(_suffer(options))
    table = markdown(felt)
    kills = sum(each.kills for each in felt)
    summary = (
        f"{options.name}: {facts['orders']} orders, {kills} kills, {len(violations)} lost or wrong; all final "
        f"{facts['final_after_seconds']:.0f} s after the last fault; {sum(facts['dead_letters'].values())} dead letters"
    )
    print(f"{table}\n\n{summary}\n")
    print(json.dumps(facts, indent=2))
    for violation in violations:
        print(violation, file=sys.stderr)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "name": options.name,
        "facts": facts,
        "violations": violations,
        "faults": [asdict(f) for f in felt],
    }
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.page:
        write_table(ROOT / "docs/benchmarks.md", f"{table}\n\n{summary}.", options.page, f"{options.rate:g} orders/s")
    return 1 if violations else 0


async def _suffer(options: argparse.Namespace) -> tuple[list[Felt], list[str], dict[str, Any]]:
    cluster = Cluster()
    operator = Operator(cluster)
    secret = await asyncio.to_thread(cluster.secret, "admin")
    await asyncio.to_thread(operator.start)
    felt: list[Felt] = []
    try:
        async with Shop(os.environ["E2E_BASE_URL"], os.environ["E2E_HOST"], connections=200) as shop:
            flow = Flow(shop, (secret["email"], secret["password"]))
            await flow.begin()
            flowing = asyncio.create_task(flow.run(options.workers, options.rate))
            try:
                await flow.probe(RECOVERY_SECONDS)
                faults = await asyncio.to_thread(lambda: list(_faults(operator, options.only)))
                end = time.monotonic() + options.minutes * 60
                for name, inject in cycle(faults):
                    if time.monotonic() > end or flowing.done():
                        break
                    felt.append(await _feel(flow, name, inject))
                    _say(felt[-1], len(flow.placed))
            finally:
                flow.stop()
            await flowing
            violations, facts = await flow.violations(options.settle)
    finally:
        await asyncio.to_thread(operator.stop)
    return felt, violations, facts


async def _feel(flow: Flow, name: str, inject: Callable[[], int]) -> Felt:
    """Do one fault, and wait until an order that is placed after it is confirmed."""
    began, first = time.monotonic(), len(flow.attempts)
    kills = await asyncio.to_thread(inject)
    confirmed = await flow.probe(RECOVERY_SECONDS)
    await asyncio.sleep(_REST_SECONDS)
    failures = [attempt for attempt in flow.attempts[first:] if _failed(attempt)]
    last = max((attempt.at + attempt.seconds for attempt in failures), default=began)
    return Felt(name, kills, len(failures), last - began, confirmed)


def _failed(attempt: Attempt) -> bool:
    return attempt.status == 0 or attempt.status >= 500


def _say(felt: Felt, orders: int) -> None:
    confirmed = "never" if felt.confirmed_after is None else f"{felt.confirmed_after:.1f} s"
    print(
        f"  {time.strftime('%T')} {felt.name}: {felt.failed} failed, for {felt.answered_after:.1f} s, "
        f"the next order confirmed after {confirmed}; {orders} orders",
        file=sys.stderr,
        flush=True,
    )


def _faults(operator: Operator, only: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """Yield faults; each returns how many pods it killed. Kinds alone, pairs, cut networks, a rolling update."""
    there = [kind for kind in KINDS if operator.pods(kind) or kind.name.endswith(("rpc", "events"))]
    faults: list[tuple[str, Callable[[], int]]] = [(kind.name, partial(_kill, operator, kind)) for kind in there]
    pairs = list(there)
    random.shuffle(pairs)
    for one, other in zip(pairs[::2], pairs[1::2], strict=False):
        faults.append((f"{one.name} and {other.name}", partial(_kill, operator, one, other)))
    if STORE in there:
        faults += [
            (
                f"no network from {domain} to its store for {CUT_SECONDS:.0f} s",
                partial(_cut, operator, domain),
            )
            for domain in DOMAINS
        ]
    faults.append(("a rolling update of all services", partial(_roll, operator, str(time.time_ns()))))
    faults.append(("the update taken back", partial(_roll, operator, "")))
    return (fault for fault in faults if only in fault[0])


def _kill(operator: Operator, *kinds: Kind) -> int:
    """Return how many pods were killed: fewer than wanted where there was none of a kind at the moment."""
    return sum(operator.kill(kind) for kind in kinds)


def _cut(operator: Operator, domain: str) -> int:
    pods = operator.cut(domain, STORE)
    time.sleep(CUT_SECONDS)
    operator.mend(pods, STORE)
    return 0


def _roll(operator: Operator, revision: str) -> int:
    operator.roll(revision)
    return 0


def markdown(felt: list[Felt]) -> str:
    """Return the table: a row for each fault, with the medians where it happened more than once."""
    lines = [
        "| fault | times | requests failed | answered again after | an order placed then, confirmed after |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(each.name for each in felt):
        same = [each for each in felt if each.name == name]
        confirmed = [each.confirmed_after for each in same if each.confirmed_after is not None]
        slowest = f"{median(confirmed):.1f} s" if len(confirmed) == len(same) else f"> {RECOVERY_SECONDS:.0f} s"
        failed = sum(each.failed for each in same)
        after = median(each.answered_after for each in same)
        lines.append(f"| {name} | {len(same)} | {failed} | {after:.1f} s | {slowest} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
