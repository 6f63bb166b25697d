"""PingSources without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from zoneinfo import ZoneInfo

import pytest

from knative.local import timers
from knative.local.manifests import ManifestError
from knative.local.parts import Tick


def tick(schedule: str = "*/5 * * * *", zone: str = "UTC", sink: str = "http://127.0.0.1:1") -> Tick:
    return Tick(
        "/apis/v1/namespaces/shop/pingsources/sweep",
        schedule,
        ZoneInfo(zone),
        "application/json",
        b"{}",
        sink,
    )


@contextmanager
def sink(status: int) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A server that answers `status`, and what it got."""
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/shop/default", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_next_time_is_the_schedules_in_its_zone() -> None:
    now = datetime(2030, 1, 1, 10, 2, 30, tzinfo=UTC)
    assert timers.next_time(tick(), now) == datetime(2030, 1, 1, 10, 5, tzinfo=UTC)
    assert timers.next_time(tick("0 12 * * *", "Europe/Berlin"), now) == datetime(2030, 1, 1, 11, 0, tzinfo=UTC)


def test_a_schedule_that_is_none_is_named() -> None:
    with pytest.raises(ManifestError, match="pingsources/sweep: schedule 'often'"):
        timers.check(tick("often"))


async def test_the_event_is_what_a_ping_source_sends() -> None:
    with sink(202) as (url, got):
        await timers.send(tick(sink=url))
    ((headers, body),) = got
    assert headers["ce-type"] == "dev.knative.sources.ping"
    assert headers["ce-source"] == "/apis/v1/namespaces/shop/pingsources/sweep"
    assert headers["ce-specversion"] == "1.0"
    assert (headers["content-type"], body) == ("application/json", b"{}")
    assert datetime.fromisoformat(headers["ce-time"]).tzinfo is not None


async def test_a_sink_that_refuses_or_is_away_is_an_error() -> None:
    with sink(503) as (url, _), pytest.raises(OSError, match="answers 503"):
        await timers.send(tick(sink=url))
    with pytest.raises(OSError, match="refused"):
        await timers.send(tick())
