"""The entry point for functions-framework: it starts at the first request."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from events.catalog import SweepDue
from functions.runtime.app import Function, Hook
from functions.runtime.clock import SystemClock
from functions.runtime.factories import open_store
from functions.runtime.process import Process, ServiceRunner
from functions.runtime.settings import RuntimeSettings, load
from functions.runtime.tests.support import FakeVerifier, service_key_files, signer, verifier

ROOT = Path(__file__).parents[3]


class Start:
    """A start that takes a moment, and fails as often as it is told."""

    def __init__(self) -> None:
        self.failures = 0
        self.starts = 0

    async def __call__(self) -> None:
        self.starts += 1
        await asyncio.sleep(0.01)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the database is not there yet")


@pytest.fixture
def start() -> Start:
    return Start()


@pytest.fixture
def own_settings() -> Iterator[None]:
    """How the tests' own process logs and collects is as before."""
    root, hook, thresholds = logging.getLogger(), sys.excepthook, gc.get_threshold()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], sys.excepthook = handlers, hook
    root.setLevel(level)
    logging.captureWarnings(False)
    logging.getLogger("shop").setLevel(logging.NOTSET)
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.fixture
def process(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_settings: None
) -> Process[RuntimeSettings]:
    monkeypatch.setenv("STORE_URL", f"sqlite:///{tmp_path}")
    monkeypatch.setenv("BROKER_URL", "http://127.0.0.1:9/nowhere")
    hooks: list[Hook] = [start]

    def bootstrap(settings: RuntimeSettings) -> Function:
        clock = SystemClock()
        store = open_store(settings, "orders", (), clock)
        return Function(
            "orders", settings, store, tuple, {}, FakeVerifier(), clock, signer("orders"), verifier(), hooks
        )

    return Process("orders", bootstrap, RuntimeSettings)


async def deliver(process: Process[RuntimeSettings]) -> int:
    """Hand a ping to the entry point, as functions-framework does; the status."""
    attributes = {"specversion": "1.0", "id": "1", "source": SweepDue.SOURCE, "type": SweepDue.TYPE}
    headers = [(b"ce-" + name.encode(), value.encode()) for name, value in attributes.items()]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    answer = await process.function(Request(scope, receive))
    return int(answer.status_code)


async def test_events_that_come_while_the_function_starts_wait_for_it(
    process: Process[RuntimeSettings], start: Start
) -> None:
    assert await asyncio.gather(*(deliver(process) for _ in range(3))) == [204, 204, 204]
    assert start.starts == 1


async def test_a_start_that_failed_is_tried_again_by_the_next_event(
    process: Process[RuntimeSettings], start: Start
) -> None:
    start.failures = 1
    with pytest.raises(RuntimeError):
        await deliver(process)

    assert await deliver(process) == 204


@pytest.mark.parametrize("role", ["rpc", "events"])
async def test_every_role_has_metrics_on_a_port_of_their_own(tmp_path: Path, role: str) -> None:
    given = {
        "STORE_URL": f"sqlite:///{tmp_path}",
        "ROLE": role,
        "METRICS_PORT": "0",
        "METRICS_HOLD_SECONDS": "0",
        "PORT": "0",
    }
    settings = load(RuntimeSettings, given)
    clock = SystemClock()
    store = open_store(settings, "orders", (), clock)
    runner = ServiceRunner(
        Function("orders", settings, store, tuple, {}, FakeVerifier(), clock, signer("orders"), verifier())
    )
    await runner.start()
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{runner.metrics_port}/metrics")
        await store.close()  # what was counted is told all the same
        again = await client.get(f"http://127.0.0.1:{runner.metrics_port}/metrics")
    await runner.stop()
    assert 'shop_outbox_rows{service="orders"} 0.0' in answer.text
    assert again.status_code == 200


async def test_the_gRPC_role_serves_metrics_without_a_web_server() -> None:
    modules = "functions.runtime.process, functions.runtime.rpc.server, observability.metrics_server"
    code = f"import sys, {modules}; print(*sys.modules)"
    ran = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    imported = (await ran.communicate())[0].decode().split()
    assert "observability.metrics_server" in imported
    assert not {"uvicorn", "starlette", "fastapi"} & set(imported)


FRAMEWORK = ["functions_framework", "--asgi", "--target", "function", "--source", "functions/orders/main.py"]
TICK = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": SweepDue.SOURCE,
    "ce-type": SweepDue.TYPE,
    "ce-correlationid": "under-the-framework",
}


@contextlib.contextmanager
def served(folder: Path, *module: str) -> Iterator[tuple[str, Path]]:
    """Run the orders service by `python -m MODULE`; its URL, and the file with what it prints."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *module]
    if module[0] == "functions_framework":
        command += ["--host", "127.0.0.1", "--port", str(port)]
    folder.mkdir(exist_ok=True)
    environ = {**os.environ, "STORE_URL": f"sqlite:///{folder}", "BROKER_URL": "http://127.0.0.1:9/nowhere"}
    environ |= service_key_files(folder, "orders")["orders"] | {"ROLE": "events", "HTTP_PORT": str(port)}
    url, printed = f"http://127.0.0.1:{port}/", folder / "printed"
    with printed.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=out)
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.ConnectError):
                httpx.get(url, timeout=30)
                break
            time.sleep(0.05)
        yield url, printed
    finally:
        process.terminate()
        process.wait(20)


def test_under_the_frameworks_own_command_every_line_is_the_same_json(tmp_path: Path) -> None:
    with served(tmp_path, *FRAMEWORK) as (url, printed):
        assert httpx.post(url, headers=TICK, content=b"{}", timeout=30).status_code == 204
    lines = [json.loads(line) for line in printed.read_text().splitlines()]
    assert {line["service"] for line in lines} == {"orders"}
    ticks = [line for line in lines if line.get("correlation_id") == "under-the-framework"]
    assert [line["outcome"] for line in ticks if line["event"] == "event"] == ["handled"]


def test_our_entry_point_and_the_frameworks_command_serve_the_same_app(tmp_path: Path) -> None:
    requests: list[tuple[str, str, dict[str, str], bytes]] = [
        ("POST", "", TICK, b"{}"),
        ("POST", "", {**TICK, "ce-type": "shop.unknown.v1"}, b"{}"),
        ("POST", "", {**TICK, "ce-type": "shop.stock.reserved.v1", "ce-source": "/products"}, b"{}"),
        ("POST", "", {"content-type": "application/json"}, b"{"),
        ("POST", "elsewhere", TICK, b"{}"),
        ("GET", "", {}, b""),
        ("GET", "robots.txt", {}, b""),
    ]
    answers = []
    for name, module in {"ours": ["functions.orders.main"], "framework": FRAMEWORK}.items():
        with served(tmp_path / name, *module) as (url, _):
            sent = [
                httpx.request(method, url + path, headers=headers, content=body, timeout=30)
                for method, path, headers, body in requests
            ]
        answers.append([(answer.status_code, answer.headers.get("content-type"), answer.text) for answer in sent])
    assert answers[0] == answers[1]
    assert [status for status, _, _ in answers[0]] == [204, 400, 403, 400, 400, 400, 404]
