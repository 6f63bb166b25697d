"""Request bodies: received within limits of size and time, and parsed strictly."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope

from functions.runtime.errors import Code, ServiceError, invalid
from gateway.problems import HttpError

MAX_DEPTH = 32


def _number(text: str) -> float:
    """Parse a number. A number such as 7.0 becomes an integer, as JSON Schema defines integers."""
    value = float(text)
    return int(value) if value.is_integer() else value


_decoder = msgspec.json.Decoder(float_hook=_number)


class JsonRequest(Request):
    """A request whose body was read and parsed before FastAPI asks for it."""

    def __init__(self, scope: Scope, receive: Receive, raw: bytes, parsed: Any) -> None:
        super().__init__(scope, receive)
        self._raw = raw
        self._parsed = parsed

    async def body(self) -> bytes:
        """Return the body as it was received."""
        return self._raw

    async def json(self) -> Any:
        """Return the parsed body."""
        return self._parsed


async def read_json(request: Request, max_bytes: int, seconds: float) -> JsonRequest:
    """Read and parse the body. Raises HttpError (408, 413, 415) or INVALID_ARGUMENT (MALFORMED_JSON)."""
    headers = request.headers
    declared = headers.get("content-length")
    if declared is not None and declared.isdigit() and int(declared) > max_bytes:
        raise too_large(max_bytes)
    media = headers.get("content-type")
    if media is not None:
        check_content_type(media)
    raw = await _receive_all(request.receive, max_bytes, seconds)
    if raw and media is None:
        check_content_type("")
    parsed = parse(raw) if raw else None
    return JsonRequest(request.scope, request.receive, raw, parsed)


def check_content_type(given: str) -> None:
    """Raise HttpError (415) unless the content type is JSON in UTF-8."""
    media, *parameters = [part.strip().lower() for part in given.split(";")]
    is_json = media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
    charsets = [part.partition("=")[2].strip('"') for part in parameters if part.startswith("charset=")]
    if not is_json or any(charset not in ("utf-8", "utf8") for charset in charsets):
        raise HttpError(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "The body must be application/json in UTF-8.",
            headers={"accept": "application/json"},
        )


async def _receive_all(receive: Receive, max_bytes: int, seconds: float) -> bytes:
    message = await _within(receive, seconds)
    if not message.get("more_body"):
        return bytes(_bounded(message.get("body", b""), max_bytes))
    received = bytearray(message.get("body", b""))
    ends = asyncio.get_running_loop().time() + seconds
    while message.get("more_body"):
        _bounded(received, max_bytes)
        message = await _within(receive, ends - asyncio.get_running_loop().time())
        received += message.get("body", b"")
    return bytes(_bounded(received, max_bytes))


async def _within(receive: Receive, seconds: float) -> Message:
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
    except TimeoutError:
        raise HttpError(
            408,
            "BODY_TOO_SLOW",
            "The body did not arrive in time.",
            code=Code.DEADLINE_EXCEEDED,
            headers={"connection": "close"},
        ) from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message


def _bounded(received: Any, max_bytes: int) -> Any:
    if len(received) > max_bytes:
        raise too_large(max_bytes)
    return received


def too_large(max_bytes: int) -> ServiceError:
    """Return the error (413) of a body larger than `max_bytes`."""
    # The connection stays open: closing it while the client sends would lose the response.
    return HttpError(413, "BODY_TOO_LARGE", f"The body is larger than {max_bytes} bytes.")


def parse(raw: bytes) -> Any:
    """Parse JSON of at most 32 levels. Raises INVALID_ARGUMENT (MALFORMED_JSON)."""
    try:
        parsed = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        _malformed("The body is not valid JSON.")
    except RecursionError:
        _malformed(f"The body is nested deeper than {MAX_DEPTH} levels.")
    # The count of brackets is a cheap upper bound of the depth.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _deeper_than(parsed, MAX_DEPTH):
        _malformed(f"The body is nested deeper than {MAX_DEPTH} levels.")
    return parsed


def _deeper_than(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if levels == 0:
        return True
    inner = value.values() if isinstance(value, dict) else value
    return any(_deeper_than(item, levels - 1) for item in inner)


def _malformed(message: str) -> NoReturn:
    raise invalid(message, reason="MALFORMED_JSON")
