"""`python -m knative.local.broker`: run the broker as a process."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from events.http_server import serving
from events.service_keys import InvalidKey
from events.service_tokens import dead_letter_callers
from events.sqlite_group_commit import StorageError
from knative.local.broker.app import BrokerApp
from knative.local.broker.config import ConfigError, load
from knative.local.broker.dispatcher import DispatchLimits
from observability.service import run_service

log = logging.getLogger("shop.broker")


def arguments(argv: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """Parse the command line; the defaults come from the environment."""
    parser = argparse.ArgumentParser(prog="python -m knative.local.broker", description=__doc__)
    config = environ.get("BROKER_CONFIG")
    parser.add_argument(
        "--config", type=Path, default=config, required=not config, help="Broker and Trigger manifests (YAML)"
    )
    parser.add_argument("--host", default=environ.get("BROKER_HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=environ.get("HTTP_PORT", "8090"))
    parser.add_argument("--data", type=Path, default=environ.get("DATA_DIR", ".data/broker"))
    parser.add_argument(
        "--parallel",
        type=int,
        default=environ.get("BROKER_PARALLEL", str(DispatchLimits().parallel)),
        help="concurrent requests per trigger",
    )
    parser.add_argument(
        "--starting-seconds",
        type=float,
        default=0.0,
        help="seconds after the start in which a subscriber that has never answered is retried without limit",
    )
    return parser.parse_args(argv)


@asynccontextmanager
async def running(options: argparse.Namespace) -> AsyncIterator[None]:
    """Context manager that serves the broker."""
    config = load(options.config.read_text())
    callers = dead_letter_callers(os.environ, time.time)
    limits = DispatchLimits(parallel=options.parallel, starting_seconds=options.starting_seconds)
    app = BrokerApp(config, options.data, limits=limits, callers=callers)
    triggers = sum(len(group) for group in config.triggers.values())

    async with serving(app, options.host, options.port) as url:
        log.info("broker ready", extra={"url": url, "brokers": list(config.triggers), "triggers": triggers})
        yield


if __name__ == "__main__":
    parsed = arguments(sys.argv[1:], os.environ)
    run_service("broker", partial(running, parsed), ConfigError, StorageError, InvalidKey, OSError)
