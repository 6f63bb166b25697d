"""Work on many things at once, as sweeps do it: none holds up the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Any

from functions.runtime.errors import ServiceError


async def gather_logged(calls: Sequence[Awaitable[Any]], log: logging.Logger) -> None:
    """Run them side by side to their ends. What fails is logged and left as it is, for the next sweep."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, ServiceError):
            log.warning("sweep_failed", extra={"reason": result.reason})
        elif isinstance(result, BaseException):
            log.error("sweep_crashed", exc_info=result)
