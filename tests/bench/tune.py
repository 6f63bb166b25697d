"""`make tune`: shows the scaling target of each manifest beside the one that its knee gives; --write sets them.

The target is the knee itself. Knative aims at 70 % of a target (`container-concurrency-target-percentage`), which
leaves room until a new pod has started. It never aims above `containerConcurrency`, the hard bound, which stays. Where
requests wait for what is no load on a pod, a target is only raised.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from knative.local.manifests import SERVING
from tests.bench.knee import JSON, Step, knee
from tests.bench.measure import ROOT

BASE = ROOT / "knative" / "base"
UTILIZATION = 0.7
"""The share of a target that Knative aims at, unless its ConfigMap config-autoscaler says otherwise."""
WAITING = {
    "gateway": "streams of orders are requests for minutes",
    "orders": "streams of orders are requests for minutes",
    "payments": "a refund waits for the provider",
    "payments-events": "a charge waits for the provider",
    "notifications-events": "a message waits for the mail server",
}
"""Services whose knee is higher in production than here, where no provider, mail server or stream takes time."""
_TARGET = re.compile(r'(autoscaling\.knative\.dev/target: ")(\d+)(")')


class Target(NamedTuple):
    """The scaling target of a service: as its manifest has it, and as measured."""

    service: str
    now: int
    knee: int
    derived: int
    hard: int


def main() -> int:
    """Return 0 once the table is printed."""
    parser = argparse.ArgumentParser(prog="make tune", description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, default=JSON, help="JSON of make knee")
    parser.add_argument("--write", action="store_true", help="change the manifests in knative/base")
    options = parser.parse_args()
    if not options.source.exists():
        parser.error(f"{options.source} is missing: run make knee")
    knees = read(json.loads(options.source.read_text()))
    targets = []
    for path in sorted(BASE.glob("*.yaml")):
        text, found = retarget(path.read_text(), knees)
        targets += found
        if options.write:
            path.write_text(text)
    print(markdown(targets))
    return 0


def read(report: Mapping[str, Any]) -> dict[str, int]:
    """Return the knee of each service in a report of `make knee`."""
    return {name: knee([Step(**step) for step in found["steps"]]) for name, found in report["services"].items()}


def derive(service: str, measured: int, now: int, hard: int) -> int:
    """Return the target of a service with this knee; `hard` is its containerConcurrency, 0 for none."""
    target = max(measured, now) if service in WAITING else measured
    return min(target, hard) if hard else target


def retarget(text: str, knees: Mapping[str, int]) -> tuple[str, list[Target]]:
    """Return a file of manifests with the targets that its services' knees give, and these targets."""
    documents, targets = re.split(r"(?m)^(?=---$)", text), []
    for number, part in enumerate(documents):
        service = yaml.safe_load(part.removeprefix("---"))
        if not service or service.get("apiVersion") != SERVING or service["metadata"]["name"] not in knees:
            continue
        name, spec = service["metadata"]["name"], service["spec"]["template"]
        now = int(spec["metadata"]["annotations"]["autoscaling.knative.dev/target"])
        hard = int(spec["spec"]["containerConcurrency"])
        target = Target(name, now, knees[name], derive(name, knees[name], now, hard), hard)
        documents[number] = _TARGET.sub(rf"\g<1>{target.derived}\g<3>", part)
        targets.append(target)
    return "".join(documents), targets


def markdown(targets: list[Target]) -> str:
    """Return the table: a row for each service."""
    lines = [
        "| service | knee | target now | derived | Knative aims at | containerConcurrency | raised only, since |",
        "|---" * 7 + "|",
    ]
    for it in targets:
        new = f"{it.derived}" if it.derived == it.now else f"**{it.derived}**"
        aim = f"{it.derived * UTILIZATION:.1f}"
        why = WAITING.get(it.service, "-")
        lines.append(f"| {it.service} | {it.knee} | {it.now} | {new} | {aim} | {it.hard or '-'} | {why} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
