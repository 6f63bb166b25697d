"""`python -m knative.local.console --port N --state platform.json --dead-letters URL`: run the console."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from pathlib import Path

from events.http_server import run_service
from events.service_tokens import DEAD_LETTERS
from functions.runtime.clock import SystemClock
from functions.runtime.factories import service_tokens
from functions.runtime.settings import RuntimeSettings, load
from knative.local.console.app import create_app
from knative.local.ports import HOST
from observability import logs

log = logging.getLogger("shop.console")


async def serve(port: int, state: Path, dead_letters: str, settings: RuntimeSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    tokens = service_tokens(settings, "console", SystemClock())
    app = create_app(state, dead_letters, lambda: tokens.token(DEAD_LETTERS))
    await run_service(app, HOST, port, lambda url: log.info("ready", extra={"url": url}), grace_seconds=1)


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description="The console of the local platform.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True, help="the runner's platform.json")
    parser.add_argument("--dead-letters", required=True, help="URL of the dead-letter sink")
    arguments = parser.parse_args()
    logs.configure("console", "WARNING")
    asyncio.run(
        serve(arguments.port, arguments.state, arguments.dead_letters, load(RuntimeSettings, os.environ))
    )


if __name__ == "__main__":
    main()
