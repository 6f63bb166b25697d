"""A process that opens the stores of one size, so that both sizes are measured without shared memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.bench.scale.work import OPERATIONS, Workload, measure

_state: dict[str, Any] = {}


class Worker:
    """A worker process; it calls `open_workload`, which must be a module's function, with `where`."""

    def __init__(self, open_workload: Callable[[Path], Workload], where: Path) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _open, (open_workload, where))

    def measure(self, name: str, calls: int) -> float:
        """Return the mean cost of one call of an operation."""
        return self._pool.submit(_measure, name, calls).result()

    def memory_mb(self) -> float:
        """Return the private resident megabytes that the work took; pages of mapped files are not included."""
        return self._pool.submit(_memory).result()

    def close(self) -> None:
        """Close the stores, and end the process."""
        self._pool.submit(_close).result()
        self._pool.shutdown()


def _open(open_workload: Callable[[Path], Workload], where: Path) -> None:
    import uvloop

    _state["runner"] = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    _state["workload"] = _state["runner"].run(_made(open_workload, where))
    _state["at rest"] = _own()  # includes the sampled ids, of which a large shop has many


async def _made(open_workload: Callable[[Path], Workload], where: Path) -> Workload:
    return open_workload(where)


def _measure(name: str, calls: int) -> float:
    spent: float = _state["runner"].run(measure(_state["workload"], OPERATIONS[name], calls))
    return spent


def _memory() -> float:
    at_rest: float = _state["at rest"]
    return _own() - at_rest


def _own() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("no RssAnon in /proc/self/status")


def _close() -> None:
    _state["runner"].run(_state["workload"].close())
    _state["runner"].close()
