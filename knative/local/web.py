"""HTTP requests to parts on this machine; the environment's proxies are not used."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


def request(
    method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None, timeout: float = 10.0
) -> tuple[int, Mapping[str, str], bytes]:
    """Send a request; return the response's status, headers (lower-case names) and body.

    Raises OSError if there is no HTTP response, or if no data arrives for `timeout` seconds.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    try:
        target = parts.path or "/"
        connection.request(method, f"{target}?{parts.query}" if parts.query else target, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__} from {url}") from error
    finally:
        connection.close()


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object in the body, {} if the body is no JSON object."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


async def answers(host: str, port: int, path: str, timeout: float = 2.0) -> bool:
    """Return whether GET `path` responds 200. Uses no thread, because it is called many times a second at start."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                status = await reader.readline()
            finally:
                writer.close()
    except OSError:  # includes TimeoutError
        return False
    return status.split(b" ")[1:2] == [b"200"]
