"""`python -m events.dead_letters`: runs the dead-letter sink as a separate service, for a cluster.

Environment:
- HTTP_PORT or PORT (8080); METRICS_PORT serves the metrics on a separate port.
- DATA_DIR, or the directory of STORE_URL (sqlite:///abs/path).
- BROKER_URL: replayed events are posted there, with the token in BROKER_TOKEN_FILE if it is set.
- SERVICE_KEYS or SERVICE_KEYS_FILE (a JWKS), and TOKEN_ISSUER: to authenticate callers that read and replay.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from events.broker_token import broker_token
from events.catalog import subscribers, trigger_name
from events.cloudevent import CloudEvent, header_block
from events.dead_letters.app import DeadLetters, Replay, ReplayFailed
from events.http_client import HttpClient, RequestFailed
from events.http_server import serving
from events.service_tokens import dead_letter_callers
from events.sqlite_group_commit import StorageError
from observability.metrics_server import MetricsServer, exposition
from observability.service import run_service

log = logging.getLogger("shop.deadletters")

_TIMEOUT = 10.0


def replay_over_http(client: HttpClient, url: str, token_file: str = "") -> Replay:
    """Return a `Replay` that posts events to the broker's URL, with the token in `token_file`."""
    target, authorization = client.target(url), broker_token(token_file)

    async def replay(event: CloudEvent, broker: str | None) -> None:
        try:
            head = header_block(event.attributes) + authorization()
            answer = await client.post(target, head, event.data, _TIMEOUT)
        except RequestFailed as error:
            raise ReplayFailed(str(error)) from None
        if not 200 <= answer.status < 300:
            raise ReplayFailed(f"it answered {answer.status}")

    return replay


def data_dir(environ: Mapping[str, str]) -> Path:
    """Return the directory of the database. Raises ValueError for a STORE_URL that is not sqlite:///."""
    if environ.get("DATA_DIR"):
        return Path(environ["DATA_DIR"])
    url = environ.get("STORE_URL") or "sqlite:///.data/deadletters"
    if not url.startswith("sqlite:///"):
        raise ValueError(f"STORE_URL: {url.partition(':')[0]} is not supported here, only sqlite:///")
    return Path(url.removeprefix("sqlite:///"))


def triggers(broker_url: str) -> list[str]:
    """Return the platform's triggers, as namespace/name.

    Their namespace is that of the broker, whose URL has the path /namespace/name.
    """
    namespace = urlsplit(broker_url).path.strip("/").partition("/")[0]
    return [f"{namespace}/{trigger_name(domain)}" for domain in subscribers()]


@asynccontextmanager
async def running(environ: Mapping[str, str]) -> AsyncIterator[None]:
    """Context manager that serves the sink and, if METRICS_PORT is set, its metrics."""
    url = environ.get("BROKER_URL", "http://127.0.0.1:8090/shop/default")
    registry = CollectorRegistry()
    app = DeadLetters(
        data_dir(environ),
        replay=replay_over_http(HttpClient(), url, environ.get("BROKER_TOKEN_FILE", "")),
        registry=registry,
        triggers=triggers(url),
        callers=dead_letter_callers(environ, time.time),
    )
    port = int(environ.get("HTTP_PORT") or environ.get("PORT") or "8080")
    host = environ.get("HTTP_HOST", "0.0.0.0")  # noqa: S104 - in a container every interface is the pod's
    # Does not wait for a final scrape: the counts are in the store, too.
    endpoint = MetricsServer(partial(exposition, registry=registry), hold=0)
    if environ.get("METRICS_PORT"):
        await endpoint.start(host, int(environ["METRICS_PORT"]))
    async with serving(app, host, port) as address:
        log.info("dead letters ready", extra={"url": address})
        yield
    await endpoint.stop()


if __name__ == "__main__":
    run_service("dead-letters", partial(running, os.environ), OSError, StorageError, ValueError)
