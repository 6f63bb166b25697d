"""What sweeps share: work on many entities at once without one delaying the others, and end in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from functions.runtime.errors import ServiceError

SWEEP_SECONDS = 20.0
"""A domain's sweep ends within this: the broker delivers the tick again after 30 s."""


@asynccontextmanager
async def sweep_deadline(log: logging.Logger) -> AsyncIterator[None]:
    """Cancel the body after SWEEP_SECONDS and log `sweep_unfinished`; the next tick continues the work."""
    try:
        async with asyncio.timeout(SWEEP_SECONDS):
            yield
    except TimeoutError:
        log.warning("sweep_unfinished")


async def gather_logged(calls: Sequence[Awaitable[Any]], log: logging.Logger) -> None:
    """Run all calls concurrently to their end. Log each failure and leave its entity for the next sweep."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, ServiceError):
            log.warning("sweep_failed", extra={"reason": result.reason})
        elif isinstance(result, BaseException):
            log.error("sweep_crashed", exc_info=result)
