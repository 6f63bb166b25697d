"""Preconditions by entity tags (RFC 9110, section 13): If-Match of writes, If-None-Match of reads."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Header
from starlette.responses import Response

from functions.runtime.errors import Code, Violation
from gateway.problems import HttpError

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t,]*|$)")


class IfMatch:
    """The versions that a write may replace: those in the If-Match header, or any version without the header."""

    def __init__(self, given: str | None) -> None:
        self._given = given

    async def version(self, current: Callable[[], Awaitable[int]]) -> int | None:
        """Return the version that the service must compare with when it writes; None for any version.

        Only strong tags match. If the header has several, `current` is called to read the current version. It is
        returned if it is one of them.

        Raises:
            HttpError: 412 when no tag can match; 400 when the header is not a list of tags.
        """
        versions = self._versions()
        if versions is None:
            return None
        if len(versions) == 1:
            return versions.pop()
        version = await current()
        if version not in versions:
            raise _mismatch()
        return version

    async def require(self, current: Callable[[], Awaitable[int]]) -> None:
        """Compare the tags with the version that `current` reads, for a service that cannot compare them itself.

        Raises as `version` does.
        """
        versions = self._versions()
        if versions is not None and await current() not in versions:
            raise _mismatch()

    def _versions(self) -> set[int] | None:
        if self._given is None or self._given.strip() == "*":
            return None
        versions = {int(tag) for weak, tag in entity_tags(self._given) if not weak and _is_version(tag)}
        if not versions:
            raise _mismatch()
        return versions


async def _if_match(
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="ETags of the version that was read; the response is 412 if none is current.",
            examples=['"1"'],
        ),
    ] = None,
) -> IfMatch:
    return IfMatch(if_match)


Precondition = Annotated[IfMatch, Depends(_if_match)]


def not_modified(response: Response, if_none_match: str) -> Response:
    """Return 304 if the client already has the entity tag of `response`; otherwise return `response`."""
    headers = response.headers
    tag = headers["etag"]
    opaque = tag.removeprefix("W/").strip('"')
    known = if_none_match.strip() == "*" or any(it[1] == opaque for it in _TAG.findall(if_none_match))
    if not known:
        return response
    return Response(None, 304, {"cache-control": headers["cache-control"], "etag": tag})


def entity_tags(given: str) -> list[tuple[str, str]]:
    """Return the (weakness, opaque tag) pairs of a list. Raises HttpError (400) for anything else."""
    rest, found = given.strip(" \t,"), []
    while rest:
        tag = _TAG.match(rest)
        after = tag and _SEPARATOR.match(rest, tag.end())
        if not tag or not after:
            field = Violation("If-Match", 'must be * or a list of entity tags such as "3"')
            raise HttpError(400, "INVALID_ARGUMENT", "The precondition cannot be read.", violations=[field])
        found.append((tag[1], tag[2]))
        rest = rest[after.end() :]
    return found


def _is_version(tag: str) -> bool:
    return tag.isascii() and tag.isdigit() and len(tag) <= 18


def _mismatch() -> HttpError:
    return HttpError(412, "VERSION_MISMATCH", "It has changed since it was read: read it again.", code=Code.ABORTED)
