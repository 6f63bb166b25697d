"""Helpers for sweeps: a time limit, and concurrent work on many entities in which no entity delays the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from functions.runtime.errors import ServiceError

SWEEP_SECONDS = 20.0
"""Time limit of a domain's sweep. It is below the 30 s after which the broker delivers the tick again."""


@asynccontextmanager
async def sweep_deadline(log: logging.Logger) -> AsyncIterator[None]:
    """Cancel the `with` block after SWEEP_SECONDS and log `sweep_unfinished`. The next sweep continues the work."""
    try:
        async with asyncio.timeout(SWEEP_SECONDS):
            yield
    except TimeoutError:
        log.warning("sweep_unfinished")


async def gather_logged(calls: Sequence[Awaitable[Any]], log: logging.Logger) -> None:
    """Run all calls concurrently until each has ended. Log each failure; the next sweep tries its entity again."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, ServiceError):
            log.warning("sweep_failed", extra={"reason": result.reason})
        elif isinstance(result, BaseException):
            log.error("sweep_crashed", exc_info=result)
