"""A process that holds the stores of one size: what it measures shares no memory with the other size's."""

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
    """One such process; `open_workload` is a function of a module, and gets `where`."""

    def __init__(self, open_workload: Callable[[Path], Workload], where: Path) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _open, (open_workload, where))

    def measure(self, name: str, all_calls: bool = True) -> float:
        """What one call of an operation spends: the mean of its usual calls, or of a tenth of them."""
        return self._pool.submit(_measure, name, all_calls).result()

    def memory_mb(self) -> float:
        """Resident megabytes of its own that the work took; what it mapped of files is the kernel's to take back."""
        return self._pool.submit(_memory).result()

    def close(self) -> None:
        """End it."""
        self._pool.submit(_close).result()
        self._pool.shutdown()


def _open(open_workload: Callable[[Path], Workload], where: Path) -> None:
    import uvloop

    _state["runner"] = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    _state["workload"] = _state["runner"].run(_made(open_workload, where))
    _state["at rest"] = _own()  # with the ids to draw from, of which a large shop has many


async def _made(open_workload: Callable[[Path], Workload], where: Path) -> Workload:
    return open_workload(where)


def _measure(name: str, all_calls: bool) -> float:
    operation = OPERATIONS[name]
    calls = operation.calls if all_calls else max(1, operation.calls // 10)
    spent: float = _state["runner"].run(measure(_state["workload"], operation, calls))
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
