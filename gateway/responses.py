"""Responses in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive

PRIVATE, REVALIDATE = b"no-store", b"no-cache"
"""Cache-Control of personal responses, and of those that any cache may store if it validates them before each use."""
_encode = msgspec.json.Encoder().encode


class JsonResponse(Response):
    """A JSON response that sets the raw headers directly: making them is most of the cost of Starlette's Response."""

    media_type = "application/json"

    def __init__(
        self,
        content: Mapping[str, Any],
        status: int = 200,
        *,
        cache: bytes = PRIVATE,
        etag: str | None = None,
        location: str | None = None,
    ) -> None:
        self.status_code = status
        self.background = None
        self.body = _encode(content)
        self.raw_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self.body)),
            (b"cache-control", cache),
        ]
        if etag is not None:
            self.raw_headers.append((b"etag", etag.encode()))
        if location is not None:
            self.raw_headers.append((b"location", location.encode()))


def no_content() -> Response:
    """Return 204."""
    return Response(None, 204, {"cache-control": PRIVATE.decode()})


async def until_disconnected(receive: Receive) -> None:
    """Wait until the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
