"""Run a service as a process: log and trace, serve until SIGTERM or SIGINT, then drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from observability import logs, tracing

_log = logging.getLogger("shop.process")

Running = Callable[[], AbstractAsyncContextManager[object]]
"""Composes and starts the service on entering, and drains it on leaving."""


def run_service(name: str, running: Running, *refusals: type[Exception], level: str = "INFO") -> None:
    """Run the service until SIGTERM or SIGINT. Exits with 1 and the message of an error of a class in `refusals`.

    LOG_LEVEL overrides `level`.
    """
    import uvloop  # imported here, because tests use another loop

    given = os.environ.get("LOG_LEVEL", "")
    logs.configure(name, given if given in logging.getLevelNamesMapping() else level)
    flush = tracing.configure(name)
    try:
        uvloop.run(_run(running))
    except refusals as error:
        sys.exit(f"{name}: {error}")
    finally:
        flush()


async def _run(running: Running) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running():
        freeze_heap()
        await stop.wait()
        _log.info("stopping")


def freeze_heap() -> None:
    """Exclude all current objects from garbage collection, and collect less often; call it once, when serving.

    Objects from the start live as long as the process. Objects of a request are freed with their last reference, so
    cycles are few. With Python's default settings an order costs a tenth more CPU (16.4 instead of 14.7 ms, on one
    machine).
    """
    gc.freeze()
    gc.set_threshold(5000, 20, 50)
