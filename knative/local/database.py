"""Run a database as a child of the platform."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from functions.runtime.store.port import NotAvailable
from knative.local.logs import last_lines, open_log
from knative.local.parts import launch

T = TypeVar("T")

_START_SECONDS: Final = 60.0


@contextmanager
def running(
    name: str, words: Sequence[str], log: Path, ready: Callable[[], T | None], stop_seconds: float
) -> Iterator[T]:
    """Context manager that runs the module and arguments in `words`. Yields the first result of `ready` that is true.

    The output goes to `log`. At the end the database gets SIGTERM, and SIGKILL if it still runs after `stop_seconds`.

    Raises:
        NotAvailable: the database has ended, or is not ready within a minute. The message contains the end of the log.
    """
    output = open_log(log)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own command
            launch(*words),
            stdin=subprocess.PIPE,  # it ends when this pipe closes, see launch
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must not end it, because it has to stop after the last part
        )
    finally:
        os.close(output)
    try:
        yield _wait(name, process, log, ready)
    finally:
        process.terminate()
        try:
            process.wait(stop_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()


def _wait(name: str, process: subprocess.Popen[bytes], log: Path, ready: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + _START_SECONDS
    while not (found := ready()):
        if process.poll() is not None or time.monotonic() > deadline:
            lines = "\n".join(f"    {line.decode(errors='replace')}" for line in last_lines(log, 5))
            raise NotAvailable(f"{name} does not start. The end of {log}:\n{lines}")
        time.sleep(0.05)
    return found
