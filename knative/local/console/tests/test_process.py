"""The console as `make up` starts it."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from functions.runtime.tests.support import service_key_files
from knative.local.console.app import OTLP_PATH, READY_PATH

START_SECONDS = 30.0


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "knative.local.console", "--port", str(port)]
    command += ["--state", str(tmp_path / "platform.json"), "--dead-letters", "http://127.0.0.1:9"]
    env = {**os.environ, **service_key_files(tmp_path, "console")["console"]}
    with subprocess.Popen(command, env=env) as process:
        deadline = time.monotonic() + START_SECONDS
        while not ready(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port
        process.terminate()


def ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", READY_PATH)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_spans_that_come_with_an_offer_to_upgrade_are_read(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    offer = {"connection": "upgrade, http2-settings", "upgrade": "h2c", "http2-settings": "AAMAAABk"}
    connection.request("POST", OTLP_PATH, b"\xff", offer)
    assert connection.getresponse().status == 400  # 200 would say that nothing was in it
    connection.close()
