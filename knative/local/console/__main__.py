"""`python -m knative.local.console --port N --state platform.json --dead-letters URL`: run the console."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from events.http_server import serving
from events.service_tokens import DEAD_LETTERS
from functions.runtime.clock import SystemClock
from functions.runtime.factories import service_tokens
from functions.runtime.settings import RuntimeSettings, load
from knative.local.console.app import create_app
from knative.local.ports import HOST
from observability.service import run_service

log = logging.getLogger("shop.console")


@asynccontextmanager
async def running(port: int, state: Path, dead_letters: str) -> AsyncIterator[None]:
    """Context manager that serves the console."""
    tokens = service_tokens(load(RuntimeSettings, os.environ), "console", SystemClock())
    app = create_app(state, dead_letters, lambda: tokens.token(DEAD_LETTERS))
    async with serving(app, HOST, port, grace_seconds=1) as url:
        log.info("ready", extra={"url": url})
        yield


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description="The console of the local platform.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True, help="the runner's platform.json")
    parser.add_argument("--dead-letters", required=True, help="URL of the dead-letter sink")
    arguments = parser.parse_args()
    served = partial(running, arguments.port, arguments.state, arguments.dead_letters)
    run_service("console", served, level="WARNING")


if __name__ == "__main__":
    main()
