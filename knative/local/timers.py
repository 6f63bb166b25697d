"""Send the events of PingSources on schedule. In a cluster Knative does this."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from cronsim import CronSim, CronSimError

from knative.local import web
from knative.local.manifests import ManifestError
from knative.local.parts import Tick

PING_TYPE = "dev.knative.sources.ping"


def check(tick: Tick) -> None:
    """Raise ManifestError for an invalid schedule."""
    try:
        CronSim(tick.schedule, datetime.now(UTC))
    except CronSimError as error:
        raise ManifestError(f"PingSource {tick.source}: schedule {tick.schedule!r}: {error}") from None


def next_time(tick: Tick, now: datetime) -> datetime:
    """Return the next time of the schedule after `now`, in its time zone."""
    moment: datetime = next(CronSim(tick.schedule, now.astimezone(tick.zone)))
    return moment


async def run(tick: Tick, warn: Callable[[str], None]) -> None:
    """Send the event on schedule, until cancelled.

    Events that were due while the machine slept are skipped, because the next event does the same work.
    """
    while True:
        now = datetime.now(UTC)
        await asyncio.sleep((next_time(tick, now) - now).total_seconds())
        try:
            await send(tick)
        except OSError as error:
            warn(f"{tick.source} could not be sent ({error}); the next is due at {next_time(tick, now):%H:%M}")


async def send(tick: Tick) -> None:
    """Send one event in binary mode, as a PingSource does. Raises OSError if the sink does not accept it."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": str(uuid4()),
        "ce-type": PING_TYPE,
        "ce-source": tick.source,
        "ce-time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "content-type": tick.content_type,
    }
    status, _, _ = await asyncio.to_thread(web.request, "POST", tick.sink, tick.data, headers)
    if status >= 300:
        raise OSError(f"{tick.sink} answers {status}")
