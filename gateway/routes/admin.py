"""Routes of administrators: all orders and accounts, signing keys, the payment provider's ledger, dead letters."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Response

from functions.runtime.errors import invalid
from gateway import api_errors as errors
from gateway.dependencies import Context, DeadLetters, OrdersClient, PaymentsClient, UsersClient
from gateway.models import admin as models
from gateway.models import orders as order_models
from gateway.models import payments as payment_models
from gateway.models import users as user_models
from gateway.models.common import view
from gateway.routes.orders import Status
from gateway.routes.parameters import Cursor, DeadLetterId, Limit, UserId
from gateway.routing import Access, ApiRouter
from proto.shop.orders.v1 import orders_pb2
from proto.shop.payments.v1 import payments_pb2
from proto.shop.users.v1 import users_pb2

router = ApiRouter("admin")

OwnerId = Annotated[str | None, Query(pattern=r"^usr_[0-9a-f]{32}$", description="Only this person's orders.")]
EventType = Annotated[
    str | None, Query(alias="type", pattern=r"^[\x21-\x7e]{1,256}$", description="Only events of this type.")
]
EveryType = Annotated[Literal["true"] | None, Query(alias="all", description="Select dead letters of all types.")]
LetterStatus = Annotated[models.DeadLetterStatus, Query(description="Status of the dead letters.")]
_REPLAY_SECONDS = 55.0


@router.get("/v1/admin/orders", access=Access.ADMIN)
async def list_all_orders(
    orders: OrdersClient, status: Status = None, user_id: OwnerId = None, limit: Limit = 20, cursor: Cursor = ""
) -> order_models.OrderPage:
    """List the orders of all customers, newest first."""
    query = orders_pb2.ListOrdersRequest(
        user_id=user_id or "",
        all=user_id is None,
        status=order_models.status_filter(status),
        limit=limit,
        cursor=cursor,
    )
    return order_models.order_page(await orders.read(orders.stub.ListOrders, query))


@router.get("/v1/admin/users", access=Access.ADMIN)
async def list_users(users: UsersClient, limit: Limit = 20, cursor: Cursor = "") -> user_models.UserPage:
    """List accounts, newest first."""
    found = await users.read(users.stub.ListUsers, users_pb2.ListUsersRequest(limit=limit, cursor=cursor))
    return {"items": [user_models.user(user) for user in found.users], "next_cursor": found.next_cursor or None}


@router.get("/v1/admin/users/{user_id}", access=Access.ADMIN, etag=True, errors=[errors.USER_NOT_FOUND])
async def read_user(user_id: UserId, users: UsersClient) -> user_models.User:
    """Read an account."""
    query = users_pb2.GetUserRequest(user_id=user_id)
    return user_models.user((await users.read(users.stub.GetUser, query)).user)


@router.put(
    "/v1/admin/users/{user_id}/roles",
    access=Access.ADMIN,
    etag=True,
    errors=[errors.REAUTHENTICATION_REQUIRED, errors.INVALID_CREDENTIALS, errors.USER_NOT_FOUND, errors.LAST_ADMIN],
)
async def set_roles(user_id: UserId, body: user_models.SetRoles, users: UsersClient) -> user_models.User:
    """Replace the roles of an account.

    New access tokens contain the new roles; existing access tokens become invalid. The last administrator cannot lose
    the role (LAST_ADMIN). This requires the calling administrator's `current_password`, or a login within the last five
    minutes.
    """
    command = users_pb2.SetRolesRequest(user_id=user_id, roles=body.roles, current_password=body.current_password or "")
    return user_models.user((await users.write(users.stub.SetRoles, command)).user)


@router.post(
    "/v1/admin/keys/rotate", access=Access.ADMIN, response_model=user_models.KeySet, errors=[errors.TOO_MANY_ROTATIONS]
)
async def rotate_keys(context: Context, users: UsersClient) -> Response:
    """Sign access tokens with a new key from now on.

    Tokens of the old key stay valid until they expire. At most one rotation a minute is allowed, because every verifier
    must have read a key before it signs.
    """
    keys = (await users.write(users.stub.RotateKeys, users_pb2.RotateKeysRequest())).jwks
    context.state.keys.forget()
    return Response(keys.json, 200, {"cache-control": "no-store"}, "application/json")


@router.get("/v1/admin/payments/ledger", access=Access.ADMIN)
async def list_ledger(payments: PaymentsClient, limit: Limit = 20, cursor: Cursor = "") -> payment_models.LedgerPage:
    """List the payment provider's ledger, oldest first."""
    query = payments_pb2.ListLedgerRequest(limit=limit, cursor=cursor)
    found = await payments.read(payments.stub.ListLedger, query)
    return {
        "items": [view(payment_models.LedgerEntry, entry) for entry in found.entries],
        "next_cursor": found.next_cursor or None,
    }


@router.get("/v1/admin/dead-letters", access=Access.ADMIN)
async def list_dead_letters(
    dead_letters: DeadLetters,
    status: LetterStatus = "pending",
    event_type: EventType = None,
    limit: Limit = 20,
    cursor: Cursor = "",
) -> models.DeadLetterPage:
    """List dead letters (events that could not be delivered), newest first."""
    query = {"limit": str(limit), "status": status}
    query |= {name: value for name, value in (("type", event_type), ("cursor", cursor)) if value}
    page: models.DeadLetterPage = await dead_letters.call("GET", "/entries", query)
    return page


@router.delete("/v1/admin/dead-letters", access=Access.ADMIN, errors=[errors.FILTER_MISSING])
async def discard_dead_letters(
    dead_letters: DeadLetters,
    status: LetterStatus = "pending",
    event_type: EventType = None,
    every_type: EveryType = None,
) -> models.Discarded:
    """Discard all dead letters of one event type in a status.

    To discard those of all types, send `all=true` instead of `type`.
    """
    if (every_type is None) is (event_type is None):
        field = ("all", "must be true unless `type` is given, and absent otherwise")
        raise invalid("Say which dead letters.", field, reason="FILTER_MISSING")
    query: dict[str, str] = {"status": status} | ({"type": event_type} if event_type else {"all": "true"})
    discarded: models.Discarded = await dead_letters.call("DELETE", "/entries", query)
    return discarded


@router.post("/v1/admin/dead-letters/replay", access=Access.ADMIN, deadline_seconds=_REPLAY_SECONDS)
async def replay_dead_letters(dead_letters: DeadLetters, event_type: EventType = None) -> models.Replayed:
    """Replay all pending dead letters, or those of one event type."""
    query = {"type": event_type} if event_type else {}
    replayed: models.Replayed = await dead_letters.call("POST", "/replay", query, seconds=_REPLAY_SECONDS)
    return replayed


@router.get("/v1/admin/dead-letters/{dead_letter_id}", access=Access.ADMIN, errors=[errors.DEAD_LETTER_NOT_FOUND])
async def read_dead_letter(dead_letter_id: DeadLetterId, dead_letters: DeadLetters) -> models.WholeDeadLetter:
    """Read a dead letter with its event."""
    dead_letter: models.WholeDeadLetter = await dead_letters.call("GET", f"/entries/{dead_letter_id}")
    return dead_letter


@router.post(
    "/v1/admin/dead-letters/{dead_letter_id}/replay",
    access=Access.ADMIN,
    errors=[errors.DEAD_LETTER_NOT_FOUND, errors.REPLAY_IN_PROGRESS],
)
async def replay_dead_letter(dead_letter_id: DeadLetterId, dead_letters: DeadLetters) -> models.DeadLetter:
    """Replay a dead letter: publish its event again.

    The event keeps its id and source, so that subscribers that have already handled it ignore it.
    """
    dead_letter: models.DeadLetter = await dead_letters.call("POST", f"/entries/{dead_letter_id}/replay")
    return dead_letter


@router.delete("/v1/admin/dead-letters/{dead_letter_id}", access=Access.ADMIN, errors=[errors.DEAD_LETTER_NOT_FOUND])
async def delete_dead_letter(dead_letter_id: DeadLetterId, dead_letters: DeadLetters) -> None:
    """Discard a dead letter."""
    await dead_letters.call("DELETE", f"/entries/{dead_letter_id}")
