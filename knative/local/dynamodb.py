"""Run DynamoDB Local with its data in the platform's folder: `--store dynamodb`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from functions.runtime.store.dynamodb.local import CREDENTIALS, NotAvailable, answers, free_port, install
from knative.local.logs import last_lines, open_log
from knative.local.parts import launch

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0


@contextmanager
def running(folder: Path, log: Path) -> Iterator[dict[str, str]]:
    """Context manager that runs DynamoDB Local; yields the environment variables for the parts. Raises NotAvailable."""
    install()
    port = free_port()
    words = launch("functions.runtime.store.dynamodb.local", str(port), str(folder))
    output = open_log(log)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own command
            words,
            stdin=subprocess.PIPE,  # it ends when this pipe closes, see launch
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must not end it, because it has to stop after the last part
        )
    finally:
        os.close(output)
    try:
        _wait(process, port, log)
        yield {"STORE_URL": f"dynamodb://shop-?endpoint=http://127.0.0.1:{port}", **CREDENTIALS}
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            lines = "\n".join(f"    {line.decode(errors='replace')}" for line in last_lines(log, 5))
            raise NotAvailable(f"DynamoDB Local does not start. The end of {log}:\n{lines}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()
