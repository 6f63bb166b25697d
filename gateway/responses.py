"""Answers in JSON, and the preconditions that go with their ETags (RFC 9110, section 13)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from functions.runtime.errors import Code, Violation
from gateway.problems import HttpError

_encode = msgspec.json.Encoder().encode
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_BETWEEN = re.compile(r"[ \t]*(?:,[ \t,]*|$)")
PRIVATE, REVALIDATE = b"no-store", b"no-cache"


class Json(Response):
    """JSON that is encoded already, with headers as they go over the wire: making them is most of Response's cost."""

    media_type = "application/json"

    def __init__(self, body: bytes, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        length = (b"content-length", str(len(body)).encode())
        self.raw_headers = [(b"content-type", b"application/json"), length, *headers]


def answer(
    content: Mapping[str, Any], status: int = 200, *, location: str | None = None, tag: str | None = None
) -> Response:
    """`content` as JSON; personal, so no cache may keep it."""
    headers = [(b"cache-control", PRIVATE)]
    if tag is not None:
        headers.append((b"etag", tag.encode()))
    if location is not None:
        headers.append((b"location", location.encode()))
    return Json(_encode(content), status, headers)


def empty() -> Response:
    """204: done, nothing to say."""
    return Response(None, 204, {"cache-control": PRIVATE.decode()})


def etag(version: int) -> str:
    """The strong entity tag of a version."""
    return f'"{version}"'


def conditional(
    request: Request, content: Mapping[str, Any], tag: str | None = None, *, cache: bytes = PRIVATE
) -> Response:
    """`content` with its ETag (by default of its version), or 304 when If-None-Match has it already."""
    tag = tag or etag(content["version"])
    given = request.headers.get("if-none-match")
    if given is not None and _none_match_has(given, tag):
        return Response(None, 304, {"cache-control": cache.decode(), "etag": tag})
    return Json(_encode(content), 200, [(b"cache-control", cache), (b"etag", tag.encode())])


def _none_match_has(given: str, tag: str) -> bool:
    if given.strip() == "*":
        return True
    wanted = tag.removeprefix("W/").strip('"')
    return any(found[1] == wanted for found in _TAG.findall(given))


async def expected_version(request: Request, current: Callable[[], Awaitable[int]]) -> int | None:
    """The version that If-Match demands, for the service to compare with when it writes; None: any.

    Only strong tags match. Of several, the one that holds now (`current` reads it) is demanded. Raises 412 when
    none can match, 400 for what is no list of tags.
    """
    versions = _if_match(request)
    if versions is None:
        return None
    if len(versions) == 1:
        return versions.pop()
    now = await current()
    if now not in versions:
        raise _mismatch()
    return now


async def require_match(request: Request, current: Callable[[], Awaitable[int]]) -> None:
    """If-Match for what the service cannot do conditionally: compared with what `current` reads just before."""
    versions = _if_match(request)
    if versions is not None and await current() not in versions:
        raise _mismatch()


def _if_match(request: Request) -> set[int] | None:
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return None
    versions = {int(tag) for weak, tag in _tags(given) if not weak and _is_version(tag)}
    if not versions:
        raise _mismatch()
    return versions


def _tags(given: str) -> list[tuple[str, str]]:
    """The (weakness, opaque tag) pairs of a list; raises 400 for anything else."""
    rest, found = given.strip(" \t,"), []
    while rest:
        tag = _TAG.match(rest)
        after = tag and _BETWEEN.match(rest, tag.end())
        if not tag or not after:
            field = Violation("If-Match", 'must be * or a list of entity tags such as "3"')
            raise HttpError(400, "INVALID_ARGUMENT", "The precondition cannot be read.", violations=[field])
        found.append((tag[1], tag[2]))
        rest = rest[after.end() :]
    return found


def _is_version(tag: str) -> bool:
    return tag.isascii() and tag.isdigit() and len(tag) <= 18


def _mismatch() -> HttpError:
    return HttpError(
        412, "VERSION_MISMATCH", "It has changed since it was read: read it again.", code=Code.ABORTED
    )
