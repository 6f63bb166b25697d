"""Processes under load: starting them, driving them from 32 callers, and reading their CPU time and memory.

Rates are requests per second of wall time. CPU is the server process's own user and system time divided by the number
of requests that it answered in the measured seconds. Memory is its resident set afterwards. All figures are read from
/proc, so this works on Linux only.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
CALLERS = 32
_TICKS = os.sysconf("SC_CLK_TCK")

Call = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Sample:
    """One measurement: requests a second, milliseconds of the server's CPU per request, and resident megabytes."""

    rate: float
    cpu_ms: float
    memory_mb: float


class Child:
    """A server process."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "LOG_LEVEL": "INFO", **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pids(self) -> list[int]:
        """Return the process ids of the server and its workers."""
        found = [self._process.pid]
        for pid in found:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            found += [int(child) for child in children]
        return found

    def cpu_seconds(self) -> float:
        """Return the user and system time used so far."""
        total = 0
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def memory_mb(self) -> float:
        """Return the resident memory in megabytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids)
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def alive(self) -> bool:
        """Return whether the process still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process and its workers."""
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def running(command: Sequence[str], port: int, environ: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Run a child that listens on `port` within the block."""
    child = Child(command, environ or {})
    try:
        await_port(child, port)
        yield child
    finally:
        child.stop()


def await_port(child: Child, port: int, seconds: float = 120.0) -> None:
    """Wait until the port accepts connections. Raises RuntimeError when the child ends before."""
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if not child.alive() or time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on port {port}")
        time.sleep(0.002)


def free_port() -> int:
    """Return a port that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def drive(call: Call, children: Sequence[Child], seconds: float, callers: int = CALLERS) -> Sample:
    """Repeat `call` from `callers` tasks for `seconds`, after a warm-up of a fifth of that time."""
    await _repeat(call, seconds / 5, callers)
    cpu = sum(child.cpu_seconds() for child in children)
    start = time.perf_counter()
    count = await _repeat(call, seconds, callers)
    took = time.perf_counter() - start
    cpu = sum(child.cpu_seconds() for child in children) - cpu
    return Sample(count / took, cpu * 1000 / max(count, 1), sum(child.memory_mb() for child in children))


async def _repeat(call: Call, seconds: float, callers: int) -> int:
    end = time.perf_counter() + seconds

    async def caller() -> int:
        count = 0
        while time.perf_counter() < end:
            await call()
            count += 1
        return count

    return sum(await asyncio.gather(*[caller() for _ in range(callers)]))


def middle(samples: Sequence[Sample]) -> Sample:
    """Return the median of each figure."""
    return Sample(
        median(s.rate for s in samples),
        median(s.cpu_ms for s in samples),
        median(s.memory_mb for s in samples),
    )
