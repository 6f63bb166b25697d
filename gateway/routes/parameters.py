"""Parameters that several routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Path, Query

from functions.runtime.formats import IDEMPOTENCY_KEY
from gateway.models.common import identifier


def _id(prefix: str) -> str:
    return rf"^{prefix}_[0-9a-f]{{32}}$"


ProductId = Annotated[str, Path(pattern=_id("prd")), identifier("prd", "Which product")]
OrderId = Annotated[str, Path(pattern=_id("ord")), identifier("ord", "Which order")]
PaymentId = Annotated[str, Path(pattern=_id("pay")), identifier("pay", "Which payment")]
NotificationId = Annotated[str, Path(pattern=_id("ntf")), identifier("ntf", "Which message")]
AddressId = Annotated[str, Path(pattern=_id("adr")), identifier("adr", "Which address")]
UserId = Annotated[str, Path(pattern=_id("usr")), identifier("usr", "Which account")]
DeadLetterId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,128}$"), identifier("dlq", "Which dead letter")]

Limit = Annotated[int, Query(ge=1, le=100, description="Maximum number of items on a page.")]
Cursor = Annotated[
    str,
    Query(
        max_length=1024, pattern=r"^[\x21-\x7e]*$", description="`next_cursor` of the previous page; empty at first."
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=IDEMPOTENCY_KEY,
        description="Makes retries safe: within 24 hours, the same key and body return the first response.",
        examples=["checkout-7f9c2ba4"],
    ),
]
