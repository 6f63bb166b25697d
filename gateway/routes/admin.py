"""Administration: everybody's orders and accounts, keys, the provider's books, dead letters."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Request, Response

from functions.runtime.errors import invalid
from gateway.middleware.request_context import clients_of, request_context_of
from gateway.models import admin as models
from gateway.models import orders as order_models
from gateway.models import payments as payment_models
from gateway.models import users as user_models
from gateway.responses import answer, conditional, empty, etag
from gateway.route_options import declare
from gateway.routes.orders import Status, order_page
from gateway.routes.params import Cursor, DeadLetterId, Limit, UserId, routes
from proto.shop.orders.v1 import orders_pb2
from proto.shop.payments.v1 import payments_pb2
from proto.shop.users.v1 import users_pb2

router = routes("admin")

OwnerId = Annotated[
    str | None, Query(pattern=r"^usr_[0-9a-f]{32}$", description="Only this person's orders.")
]
EventType = Annotated[
    str | None, Query(pattern=r"^[\x21-\x7e]{1,256}$", description="Only events of this type.")
]
EveryType = Annotated[Literal["true"] | None, Query(description="Of every type.")]
LetterStatus = Annotated[models.DeadLetterStatus, Query(description="Where they stand.")]
_NO_USER = {404: "USER_NOT_FOUND"}
_NO_LETTER = {404: "DEAD_LETTER_NOT_FOUND"}
_REPLAY_SECONDS = 55.0


@router.get("/v1/admin/orders", **declare("admin", 200, order_models.OrderPage))
async def list_all_orders(
    request: Request, status: Status = None, user_id: OwnerId = None, limit: Limit = 20, cursor: Cursor = ""
) -> Response:
    """List everybody's orders, newest first."""
    wanted = orders_pb2.ListOrdersRequest(
        user_id=user_id or "",
        all=user_id is None,
        status=order_models.status_filter(status),
        limit=limit,
        cursor=cursor,
    )
    return answer(await order_page(request, wanted))


@router.get("/v1/admin/users", **declare("admin", 200, user_models.UserPage))
async def list_users(request: Request, limit: Limit = 20, cursor: Cursor = "") -> Response:
    """List accounts, newest first."""
    users = clients_of(request).users
    wanted = users_pb2.ListUsersRequest(limit=limit, cursor=cursor)
    found = await users.read(users.stub.ListUsers, wanted)
    page: user_models.UserPage = {
        "items": [user_models.user(user) for user in found.users],
        "next_cursor": found.next_cursor or None,
    }
    return answer(page)


@router.get(
    "/v1/admin/users/{user_id}", **declare("admin", 200, user_models.User, tagged="read", problems=_NO_USER)
)
async def read_user(request: Request, user_id: UserId) -> Response:
    """Read an account."""
    users = clients_of(request).users
    found = (await users.read(users.stub.GetUser, users_pb2.GetUserRequest(user_id=user_id))).user
    return conditional(request, user_models.user(found))


@router.put(
    "/v1/admin/users/{user_id}/roles",
    **declare(
        "admin",
        200,
        user_models.User,
        tagged="sent",
        problems={
            **_NO_USER,
            401: "REAUTHENTICATION_REQUIRED, INVALID_CREDENTIALS, TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED",
            409: "LAST_ADMIN",
        },
    ),
)
async def set_roles(request: Request, user_id: UserId, body: user_models.SetRoles) -> Response:
    """Replace the roles of an account.

    They show in the access tokens that are given out from then on. The last administrator stays one. Needs the
    administrator's `current_password`, or a login of the last five minutes.
    """
    users = clients_of(request).users
    wanted = users_pb2.SetRolesRequest(
        user_id=user_id, roles=body.roles, current_password=body.current_password or ""
    )
    user = user_models.user((await users.write(users.stub.SetRoles, wanted)).user)
    return answer(user, tag=etag(user["version"]))


@router.post(
    "/v1/admin/keys/rotate",
    **declare("admin", 200, user_models.KeySet, problems={429: "TOO_MANY_ROTATIONS, RATE_LIMITED"}),
)
async def rotate_keys(request: Request) -> Response:
    """Sign access tokens with a new key from now on.

    The old key still verifies until its last token has expired. Once a minute: every verifier has to know a key first.
    """
    users = clients_of(request).users
    keys = (await users.write(users.stub.RotateKeys, users_pb2.RotateKeysRequest())).jwks
    request_context_of(request).gateway.keys.forget()
    return Response(keys.json, 200, {"cache-control": "no-store"}, "application/json")


@router.get("/v1/admin/payments/ledger", **declare("admin", 200, payment_models.LedgerPage))
async def list_ledger(request: Request, limit: Limit = 20, cursor: Cursor = "") -> Response:
    """List what the payment provider has on its books, oldest first."""
    payments = clients_of(request).payments
    wanted = payments_pb2.ListLedgerRequest(limit=limit, cursor=cursor)
    found = await payments.read(payments.stub.ListLedger, wanted)
    page: payment_models.LedgerPage = {
        "items": [payment_models.ledger_entry(entry) for entry in found.entries],
        "next_cursor": found.next_cursor or None,
    }
    return answer(page)


@router.get("/v1/admin/dead-letters", **declare("admin", 200, models.DeadLetterPage))
async def list_dead_letters(
    request: Request,
    status: LetterStatus = "pending",
    type: EventType = None,  # noqa: A002 - the query parameter's name
    limit: Limit = 20,
    cursor: Cursor = "",
) -> Response:
    """List events that nobody took, newest first."""
    query = {"limit": str(limit), "status": status}
    query |= {name: value for name, value in (("type", type), ("cursor", cursor)) if value}
    return answer(await clients_of(request).dead_letters.call("GET", "/entries", query))


@router.delete(
    "/v1/admin/dead-letters",
    **declare("admin", 200, models.Discarded, problems={400: "INVALID_ARGUMENT, FILTER_MISSING"}),
)
async def discard_dead_letters(
    request: Request,
    status: LetterStatus = "pending",
    type: EventType = None,  # noqa: A002 - as above
    all: EveryType = None,  # noqa: A002 - the query parameter's name
) -> Response:
    """Throw away the dead letters of one type and a status.

    Those of every type only with `all=true`, which excludes `type`.
    """
    if (all is None) is (type is None):
        field = ("all", "must be true, or else `type` be given: one of the two")
        raise invalid("Say which dead letters.", field, reason="FILTER_MISSING")
    query = {"status": status} | ({"type": type} if type else {"all": "true"})
    return answer(await clients_of(request).dead_letters.call("DELETE", "/entries", query))


@router.post(
    "/v1/admin/dead-letters/replay", **declare("admin", 200, models.Replayed, seconds=_REPLAY_SECONDS)
)
async def replay_dead_letters(request: Request, type: EventType = None) -> Response:  # noqa: A002 - as above
    """Give all pending dead letters, or those of one type, back to the broker."""
    query = {"type": type} if type else {}
    letters = clients_of(request).dead_letters
    return answer(await letters.call("POST", "/replay", query, seconds=_REPLAY_SECONDS))


@router.get(
    "/v1/admin/dead-letters/{dead_letter_id}",
    **declare("admin", 200, models.WholeDeadLetter, problems=_NO_LETTER),
)
async def read_dead_letter(request: Request, dead_letter_id: DeadLetterId) -> Response:
    """Read a dead letter with its event."""
    return answer(await clients_of(request).dead_letters.call("GET", f"/entries/{dead_letter_id}"))


@router.post(
    "/v1/admin/dead-letters/{dead_letter_id}/replay",
    **declare("admin", 200, models.DeadLetter, problems={**_NO_LETTER, 409: "REPLAY_IN_PROGRESS"}),
)
async def replay_dead_letter(request: Request, dead_letter_id: DeadLetterId) -> Response:
    """Give a dead letter back to the broker.

    It keeps its id and source, so whoever has seen it already will not act twice.
    """
    return answer(await clients_of(request).dead_letters.call("POST", f"/entries/{dead_letter_id}/replay"))


@router.delete("/v1/admin/dead-letters/{dead_letter_id}", **declare("admin", 204, problems=_NO_LETTER))
async def delete_dead_letter(request: Request, dead_letter_id: DeadLetterId) -> Response:
    """Throw a dead letter away."""
    await clients_of(request).dead_letters.call("DELETE", f"/entries/{dead_letter_id}")
    return empty()
