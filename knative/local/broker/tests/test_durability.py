"""What the broker has acknowledged survives a restart, and a kill -9."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from events.sqlite_group_commit import SchemaTooNew
from events.tests.support import Answer, free_port, headers, ready, subscribed, until
from knative.local.broker.dispatcher import DispatchLimits
from knative.local.broker.tests.support import any_of, as_yaml, broker, running, trigger

ROOT = Path(__file__).parents[4]


def rows(data: Path) -> tuple[int, int]:
    with sqlite3.connect(data / "broker.db") as db:
        events = db.execute("SELECT count(*) FROM events").fetchone()[0]
        deliveries = db.execute("SELECT count(*) FROM deliveries").fetchone()[0]
    db.close()
    return events, deliveries


@contextmanager
def process(config: Path, data: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "knative.local.broker", "--config", str(config), "--data", str(data)]
    command += ["--port", str(port)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


async def test_every_acknowledged_event_arrives_although_the_broker_is_killed(tmp_path: Path) -> None:
    port, config, data = free_port(), tmp_path / "config.yaml", tmp_path / "data"
    acknowledged: set[str] = set()
    gate = asyncio.Event()
    async with subscribed(gate=gate) as slow, subscribed(*[Answer(503)] * 20) as flaky:
        spec = {"retry": 50, "backoffPolicy": "linear", "backoffDelay": "PT0.01S"}
        config.write_text(as_yaml([broker(delivery=spec), trigger("slow", slow.url), trigger("flaky", flaky.url)]))

        async def publish(http: httpx.AsyncClient, first: int) -> None:
            for number in range(first, first + 20):
                try:
                    answer = await http.post("/", headers=headers(str(number)), content=b"{}")
                except httpx.TransportError:
                    return
                if answer.status_code == 202:
                    acknowledged.add(str(number))

        for run in range(3):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                with process(config, data, port) as child:
                    await ready(http)
                    first, before = run * 1000, len(acknowledged)
                    work = [asyncio.create_task(publish(http, first + part * 20)) for part in range(8)]
                    await until(lambda before=before: len(acknowledged) > before + 40)  # type: ignore[misc] # bound
                    if run < 2:
                        child.send_signal(signal.SIGKILL)
                    await asyncio.gather(*work)
                    if run == 2:
                        gate.set()
                        await until(lambda: acknowledged <= set(slow.ids), 20)
                        await until(lambda: acknowledged <= set(flaky.ids), 20)
                        child.send_signal(signal.SIGTERM)
                        assert await asyncio.to_thread(child.wait, 15) == 0
    assert len(acknowledged) > 120
    assert rows(data) == (0, 0)


async def test_a_signal_ends_the_process_with_0_and_what_is_pending_waits_for_the_next_start(
    tmp_path: Path,
) -> None:
    port, config, data = free_port(), tmp_path / "config.yaml", tmp_path / "data"
    async with subscribed(*[Answer(503)] * 1) as subscriber:
        spec = {"retry": 5, "backoffPolicy": "exponential", "backoffDelay": "PT2S"}
        config.write_text(as_yaml([broker(delivery=spec), trigger("t", subscriber.url)]))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            with process(config, data, port) as child:
                await ready(http)
                assert (await http.post("/", headers=headers())).status_code == 202
                await until(lambda: len(subscriber.received) == 1)
                child.send_signal(signal.SIGINT)
                assert await asyncio.to_thread(child.wait, 15) == 0
            assert rows(data) == (1, 1)
            with process(config, data, port):
                await ready(http)
                await until(lambda: len(subscriber.received) == 2)


def test_a_process_that_cannot_start_says_why(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(as_yaml([broker(), trigger("odd", "http://x/", filters=[{"cesql": "type = 'a'"}])]))
    with process(config, tmp_path, free_port()) as child:
        out, _ = child.communicate(timeout=20)
    assert child.returncode == 1
    assert b"Trigger shop/odd" in out
    assert b"cesql" in out


async def test_retries_and_their_times_survive_a_restart(tmp_path: Path) -> None:
    async with subscribed(*[Answer(503)] * 2) as subscriber, subscribed() as sink:
        spec = {
            "retry": 1,
            "backoffPolicy": "exponential",
            "backoffDelay": "PT1S",
            "deadLetterSink": {"uri": sink.url},
        }
        documents = broker(delivery=spec), trigger("t", subscriber.url)
        async with running(tmp_path, *documents) as it:
            await it.post()
            await until(lambda: it.metric("shop_broker_retries_total", trigger="shop/t") == 1)
        async with running(tmp_path, *documents) as it:
            assert it.metric("shop_broker_pending", trigger="shop/t") == 1
            assert len(subscriber.received) == 1  # not before its time
            await until(lambda: len(sink.received) == 1)  # the second failure was the last one allowed
    assert len(subscriber.received) == 2


async def test_a_dead_letter_waits_for_its_sink_across_restarts(tmp_path: Path) -> None:
    async with subscribed() as gone:
        pass
    async with subscribed(Answer(400)) as subscriber, subscribed() as sink:
        for url in (gone.url, sink.url):
            spec = {"retry": 0, "deadLetterSink": {"uri": url}}
            async with running(tmp_path, broker(delivery=spec), trigger("t", subscriber.url)) as it:
                if url == gone.url:
                    await it.post()
                    await until(lambda: it.metric("shop_broker_dead_letter_failures_total", trigger="shop/t") > 0)
                else:
                    await until(lambda: len(sink.received) == 1)
    assert len(subscriber.received) == 1
    assert sink.received[0].headers["ce-knativeerrorcode"] == "400"
    assert rows(tmp_path) == (0, 0)


async def test_what_does_not_fit_into_memory_is_read_back_in_order(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with subscribed(gate=gate) as subscriber:
        limits = DispatchLimits(parallel=1, in_memory=4)
        async with running(tmp_path, broker(), trigger("t", subscriber.url), limits=limits) as it:
            for number in range(30):
                await it.post(str(number))
            assert it.metric("shop_broker_pending", trigger="shop/t") == 30
            gate.set()
            await until(lambda: len(subscriber.received) == 30)
            await until(lambda: it.metric("shop_broker_pending", trigger="shop/t") == 0)
    assert subscriber.ids == [str(number) for number in range(30)]
    assert rows(tmp_path) == (0, 0)


async def test_more_than_fits_into_memory_is_there_after_a_restart_too(tmp_path: Path) -> None:
    gate = asyncio.Event()
    limits = DispatchLimits(parallel=2, in_memory=4)
    async with subscribed(gate=gate) as subscriber:
        documents = broker(delivery={"retry": 5}), trigger("t", subscriber.url)
        async with running(tmp_path, *documents, limits=limits) as it:
            for number in range(20):
                await it.post(str(number))
            it.app.refuse()
            gate.set()
        async with running(tmp_path, *documents, limits=limits):
            await until(lambda: len(set(subscriber.ids)) == 20)


async def test_deliveries_of_a_trigger_that_is_gone_rest_until_it_is_back(tmp_path: Path) -> None:
    async with subscribed(Answer(503)) as subscriber:
        spec = {"retry": 5, "backoffPolicy": "exponential", "backoffDelay": "PT0.5S"}
        documents = broker(delivery=spec), trigger("t", subscriber.url)
        async with running(tmp_path, *documents) as it:
            await it.post()
            await until(lambda: it.metric("shop_broker_retries_total", trigger="shop/t") == 1)
        async with running(tmp_path, broker()):
            pass
        async with running(tmp_path, *documents):
            await until(lambda: len(subscriber.received) == 2)


async def test_one_trigger_for_all_types_continues_the_triggers_for_single_types(tmp_path: Path) -> None:
    placed, reserved, unheard = "shop.order.placed.v1", "shop.stock.reserved.v1", "shop.user.deleted.v1"
    gate = asyncio.Event()
    async with subscribed(gate=gate) as orders, subscribed(gate=gate) as other:
        single = [
            trigger("orders-stock-reserved", orders.url, filter={"attributes": {"type": reserved}}),
            trigger("orders-user-deleted", orders.url, filter={"attributes": {"type": unheard}}),
            trigger("orders-events", orders.url),
            trigger("other", other.url, filter={"attributes": {"type": placed}}),
        ]
        async with running(tmp_path, broker(), *single) as it:
            for number, name in enumerate((placed, reserved, unheard)):
                await it.post(str(number), type=name)
            it.app.refuse()
        assert rows(tmp_path) == (3, 6)
        del orders.received[:], other.received[:]
        gate.set()
        whole = trigger("orders-events", orders.url, filters=any_of(placed, reserved))
        async with running(tmp_path, broker(), whole, trigger("other", other.url)) as it:
            await until(lambda: len(orders.received) == 2)
            await until(lambda: len(other.received) == 1)
    assert (sorted(orders.ids), other.ids) == (["0", "1"], ["0"])
    assert rows(tmp_path) == (1, 2)  # nobody hears that type any more


async def test_an_event_that_nobody_wants_leaves_nothing_behind(tmp_path: Path) -> None:
    async with running(tmp_path, broker()) as it:
        assert (await it.post()).status_code == 202
    assert rows(tmp_path) == (0, 0)


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "broker.db") as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(SchemaTooNew, match=r"broker.db has schema version 7"):
        async with running(tmp_path, broker()):
            pass
