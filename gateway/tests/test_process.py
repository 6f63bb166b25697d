"""The gateway as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys

import httpx
import pytest


async def gateway(**variables: str) -> asyncio.subprocess.Process:
    """`python -m gateway.main` with these variables."""
    environ = {**os.environ, "HTTP_PORT": "0", **variables}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.main",
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_it_serves_without_any_other_service_and_stops_on_sigterm() -> None:
    process = await gateway()
    try:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert ready["event"] == "ready"
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ready['http_port']}") as api:
            assert (await api.get("/healthz/ready")).status_code == 200
            assert (await api.get("/openapi.json")).status_code == 200
            answer = await api.get("/v1/products", headers={"x-correlation-id": "from-the-test-1"}, timeout=10)
            assert answer.status_code in (503, 504)
        line = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        while line.get("correlation_id") != "from-the-test-1":
            line = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert line["status"] == answer.status_code
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("variables", "named"),
    [({"MAX_BODY_BYTES": "many"}, "MAX_BODY_BYTES"), ({"DEADLINE_SECONDS": "-1"}, "DEADLINE_SECONDS")],
)
async def test_a_setting_that_cannot_be_is_named(variables: dict[str, str], named: str) -> None:
    process = await gateway(**variables)
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode != 0
    assert named in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await gateway(HTTP_PORT=str(port))
        _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode != 0
    assert str(port) in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_what_an_order_calls_is_woken_at_start_and_nothing_else() -> None:
    asked: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait((await reader.readuntil(b"\r\n\r\n")).splitlines()[1])
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        process = await gateway(WAKE=f"127.0.0.1:{port};localhost:{port}")
        try:
            async with asyncio.timeout(60):
                assert await asked.get() == b"Host: 127.0.0.1"
                assert process.stdout
                assert json.loads(await process.stdout.readline())["event"] == "ready"
            assert asked.empty()
        finally:
            process.kill()
            await process.wait()
