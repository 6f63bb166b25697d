"""Parameters that many routes share."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request

from functions.runtime.errors import invalid
from functions.runtime.formats import IDEMPOTENCY_KEY
from functions.runtime.identity import current_caller
from gateway.models.common import identifier
from gateway.routing import ApiRoute

_KEY = re.compile(IDEMPOTENCY_KEY)


def routes(tag: str) -> APIRouter:
    """A router of one domain."""
    return APIRouter(route_class=ApiRoute, tags=[tag], generate_unique_id_function=lambda route: route.name)


def _id(prefix: str) -> str:
    return rf"^{prefix}_[0-9a-f]{{32}}$"


ProductId = Annotated[str, Path(pattern=_id("prd")), identifier("prd", "Which product")]
OrderId = Annotated[str, Path(pattern=_id("ord")), identifier("ord", "Which order")]
PaymentId = Annotated[str, Path(pattern=_id("pay")), identifier("pay", "Which payment")]
NotificationId = Annotated[str, Path(pattern=_id("ntf")), identifier("ntf", "Which message")]
AddressId = Annotated[str, Path(pattern=_id("adr")), identifier("adr", "Which address")]
UserId = Annotated[str, Path(pattern=_id("usr")), identifier("usr", "Which account")]
DeadLetterId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,128}$"), identifier("dlq", "Which dead letter")]

Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
Cursor = Annotated[
    str,
    Query(
        max_length=1024,
        pattern=r"^[\x21-\x7e]*$",
        description="`next_cursor` of the page before; empty: the first.",
    ),
]


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key header: 1 to 255 visible ASCII characters. Raises INVALID_ARGUMENT."""
    given = request.headers.get("idempotency-key")
    if given is not None and not _KEY.fullmatch(given):
        field = ("Idempotency-Key", "must be 1 to 255 visible ASCII characters")
        raise invalid("The idempotency key is not valid.", field)
    return given


def me() -> str:
    """The id of the signed-in caller."""
    return current_caller().subject
