"""`python -m knative.local.broker`: run the broker as a process."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from events.http_server import run_service
from events.service_keys import InvalidKey
from events.service_tokens import dead_letter_callers
from events.sqlite import StorageError
from knative.local.broker.app import BrokerApp
from knative.local.broker.config import ConfigError, load
from knative.local.broker.dispatcher import DispatchLimits
from observability import logs, tracing

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
    return parser.parse_args(argv)


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    config = load(options.config.read_text())
    callers = dead_letter_callers(os.environ, time.time)
    app = BrokerApp(config, options.data, limits=DispatchLimits(parallel=options.parallel), callers=callers)
    triggers = sum(len(group) for group in config.triggers.values())

    def ready(url: str) -> None:
        log.info("broker ready", extra={"url": url, "brokers": list(config.triggers), "triggers": triggers})

    await run_service(app, options.host, options.port, ready)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the broker; return the exit code: 0 after a signal, 1 if it cannot start (the log says why)."""
    options = arguments(sys.argv[1:] if argv is None else argv, os.environ)
    logs.configure("broker", os.environ.get("LOG_LEVEL", "INFO"))
    end_tracing = tracing.configure("broker")
    try:
        uvloop.run(serve(options))
    except (ConfigError, StorageError, InvalidKey) as error:
        log.error("the broker cannot start: %s", error)
        return 1
    except OSError as error:
        log.error(
            "the broker cannot start: %s",
            error.strerror or error,
            extra={"file": error.filename, "address": f"{options.host}:{options.port}"},
        )
        return 1
    finally:
        end_tracing()
    return 0


if __name__ == "__main__":
    sys.exit(main())
