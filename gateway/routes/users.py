"""The caller's own account."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request, Response

from functions.runtime.errors import ServiceError
from gateway.data_export import DataExport
from gateway.limits import EXPORT_COST, PASSWORD_COST
from gateway.middleware.request_context import clients_of, request_context_of
from gateway.models import users as models
from gateway.models.export import Export
from gateway.responses import answer, conditional, empty, etag, expected_version, require_match
from gateway.route_options import declare
from gateway.routes.params import AddressId, me, routes
from proto.shop.users.v1 import users_pb2 as pb

router = routes("users")

_INVALID = {400: "INVALID_ARGUMENT, WEAK_PASSWORD, MALFORMED_JSON"}
_WHO = "TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED"
_AGAIN = f"REAUTHENTICATION_REQUIRED, INVALID_CREDENTIALS, {_WHO}"
_PASSWORD = {
    **_INVALID,
    401: f"INVALID_CREDENTIALS, {_WHO}",
    429: "TOO_MANY_ATTEMPTS, RATE_LIMITED",
}


async def _current(request: Request) -> pb.User:
    users = clients_of(request).users
    return (await users.read(users.stub.GetUser, pb.GetUserRequest(user_id=me()))).user


async def _version(request: Request) -> int:
    return (await _current(request)).version


@router.post(
    "/v1/users",
    **declare(
        "open",
        201,
        models.User,
        cost=PASSWORD_COST,
        problems={**_INVALID, 409: "EMAIL_TAKEN", 429: "TOO_MANY_REGISTRATIONS, RATE_LIMITED"},
        tagged="sent",
        located="/v1/users/me",
    ),
)
async def register_user(request: Request, body: models.Register) -> Response:
    """Create an account.

    The new account has the role `customer`. A session is started separately. An e-mail that has an account already gets
    the same answer, and its owner a message; where the shop is set to tell (REGISTRATION=open), 409 EMAIL_TAKEN.
    A network address, and all together, register only so many in 15 minutes.
    """
    users = clients_of(request).users
    wanted = pb.RegisterRequest(
        email=body.email,
        password=body.password,
        name=body.name,
        client_address=request_context_of(request).address,
    )
    user = models.user((await users.write(users.stub.Register, wanted)).user)
    return answer(user, 201, location="/v1/users/me", tag=etag(user["version"]))


@router.get("/v1/users/me", **declare("signed-in", 200, models.User, tagged="read"))
async def read_me(request: Request) -> Response:
    """Read one's own account."""
    return conditional(request, models.user(await _current(request)))


@router.get(
    "/v1/users/me/export",
    **declare(
        "signed-in",
        200,
        Export,
        seconds=30,
        cost=EXPORT_COST,
        sends=("Content-Disposition",),
        problems={401: _AGAIN, 429: "RATE_LIMITED"},
    ),
)
async def export_me(request: Request) -> Response:
    """Export all that is kept about oneself.

    One document from every domain, complete, however long; a few times an hour, and within five minutes of a login. One
    that breaks off is not complete.
    """
    request_context, users = request_context_of(request), clients_of(request).users
    own = await users.read(users.stub.ExportUser, pb.ExportUserRequest(user_id=me()))
    request_context.count(request_context.gateway.exports, me())
    return await DataExport.open(clients_of(request), me(), own)


@router.patch(
    "/v1/users/me",
    **declare(
        "signed-in",
        200,
        models.User,
        tagged="write",
        problems={401: _AGAIN, 409: "EMAIL_TAKEN", 429: "TOO_MANY_ATTEMPTS, RATE_LIMITED"},
    ),
)
async def update_me(request: Request, body: models.UpdateUser) -> Response:
    """Change one's own account.

    What is absent stays as it is. Another e-mail needs `current_password`, or a login of the last five minutes. It is
    pending until the code that is mailed to it came back (POST /v1/email-changes/confirm); the present e-mail cancels
    it. At most five are tried in 15 minutes.
    """
    users = clients_of(request).users
    version = await expected_version(request, lambda: _version(request))
    wanted = pb.UpdateUserRequest(
        user_id=me(),
        name=body.name,
        email=body.email,
        version=version,
        current_password=body.current_password or "",
    )
    user = models.user((await users.write(users.stub.UpdateUser, wanted)).user)
    return answer(user, tag=etag(user["version"]))


@router.post(
    "/v1/email-changes/confirm",
    **declare(
        "open",
        204,
        problems={
            400: "INVALID_ARGUMENT, MAILED_TOKEN_INVALID, MALFORMED_JSON",
            409: "EMAIL_TAKEN, VERSION_MISMATCH",
            429: "TOO_MANY_EMAIL_CHANGES, RATE_LIMITED",
        },
    ),
)
async def confirm_email_change(request: Request, body: models.AnswerEmailChange) -> Response:
    """Confirm a new e-mail by the code that was mailed to it.

    It works once, for a day. The former address is told, and gets a code that undoes the change for seven days.
    """
    users = clients_of(request).users
    await users.write(users.stub.ConfirmEmailChange, pb.ConfirmEmailChangeRequest(token=body.token))
    return empty()


@router.post(
    "/v1/email-changes/undo",
    **declare(
        "open",
        204,
        problems={
            400: "INVALID_ARGUMENT, MAILED_TOKEN_INVALID, MALFORMED_JSON",
            409: "VERSION_MISMATCH",
        },
    ),
)
async def undo_email_change(request: Request, body: models.AnswerEmailChange) -> Response:
    """Give an account back to its former e-mail by the code that was mailed to it.

    It works once, for seven days. Every session ends, no password is right any more, and a code for a new one is mailed
    to the address that is back.
    """
    users = clients_of(request).users
    await users.write(users.stub.UndoEmailChange, pb.UndoEmailChangeRequest(token=body.token))
    return empty()


@router.delete(
    "/v1/users/me", **declare("signed-in", 204, tagged="write", problems={401: _AGAIN, 409: "LAST_ADMIN"})
)
async def delete_me(request: Request) -> Response:
    """Delete one's own account.

    Within five minutes of a login only. Everything that names the person is erased, everywhere.
    """
    users = clients_of(request).users
    await require_match(request, lambda: _version(request))
    await users.write(users.stub.DeleteUser, pb.DeleteUserRequest(user_id=me()))
    return empty()


@router.put("/v1/users/me/password", **declare("signed-in", 204, cost=PASSWORD_COST, problems=_PASSWORD))
async def change_password(request: Request, body: models.ChangePassword) -> Response:
    """Change the password.

    Every session ends. A wrong current password answers 401 INVALID_CREDENTIALS.
    """
    users = clients_of(request).users
    wanted = pb.ChangePasswordRequest(
        user_id=me(), current_password=body.current_password, new_password=body.new_password
    )
    await users.write(users.stub.ChangePassword, wanted)
    return empty()


@router.post(
    "/v1/users/me/email-verification",
    **declare("signed-in", 204, problems={429: "TOO_MANY_ATTEMPTS, RATE_LIMITED"}),
)
async def request_email_verification(request: Request) -> Response:
    """Have a code mailed that verifies one's address.

    Nothing is sent for one that is verified.
    """
    users = clients_of(request).users
    await users.write(users.stub.RequestEmailVerification, pb.RequestEmailVerificationRequest(user_id=me()))
    return empty()


@router.post(
    "/v1/email-verifications",
    **declare("open", 204, problems={400: "INVALID_ARGUMENT, MAILED_TOKEN_INVALID, MALFORMED_JSON"}),
)
async def verify_email(request: Request, body: models.VerifyEmail) -> Response:
    """Verify an address by the mailed code.

    It works once, for a day.
    """
    users = clients_of(request).users
    await users.write(users.stub.VerifyEmail, pb.VerifyEmailRequest(token=body.token))
    return empty()


@router.get("/v1/users/me/addresses", **declare("signed-in", 200, models.AddressPage, tagged="read"))
async def list_addresses(request: Request) -> Response:
    """List one's own addresses."""
    users = clients_of(request).users
    found = await users.read(users.stub.ListAddresses, pb.ListAddressesRequest(user_id=me()))
    page: models.AddressPage = {
        "items": [models.address(address) for address in found.addresses],
        "next_cursor": None,
    }
    # The list has no version of its own, so its tag is made of its content.
    digest = hashlib.sha256(found.SerializeToString(deterministic=True)).hexdigest()[:32]
    return conditional(request, page, f'"{digest}"')


@asynccontextmanager
async def _own_fields() -> AsyncIterator[None]:
    """Violations name the request's fields: to the service the body is its `address`."""
    try:
        yield
    except ServiceError as error:
        error.violations = tuple(v._replace(field=v.field.removeprefix("address.")) for v in error.violations)
        raise


@router.post(
    "/v1/users/me/addresses",
    **declare("signed-in", 201, models.Address, problems={409: "TOO_MANY_ADDRESSES"}, located=True),
)
async def add_address(request: Request, body: models.AddressIn) -> Response:
    """Add an address.

    At most 20 are kept.
    """
    users = clients_of(request).users
    wanted = pb.AddAddressRequest(user_id=me(), address=pb.Address(**body.model_dump()))
    async with _own_fields():
        address = models.address((await users.write(users.stub.AddAddress, wanted)).address)
    return answer(address, 201, location=f"/v1/users/me/addresses/{address['id']}")


@router.put(
    "/v1/users/me/addresses/{address_id}",
    **declare("signed-in", 200, models.Address, problems={404: "ADDRESS_NOT_FOUND"}),
)
async def replace_address(request: Request, address_id: AddressId, body: models.AddressIn) -> Response:
    """Replace an address."""
    users = clients_of(request).users
    address = pb.Address(id=address_id, **body.model_dump())
    wanted = pb.UpdateAddressRequest(user_id=me(), address=address)
    async with _own_fields():
        return answer(models.address((await users.write(users.stub.UpdateAddress, wanted)).address))


@router.delete(
    "/v1/users/me/addresses/{address_id}", **declare("signed-in", 204, problems={404: "ADDRESS_NOT_FOUND"})
)
async def delete_address(request: Request, address_id: AddressId) -> Response:
    """Remove an address."""
    users = clients_of(request).users
    wanted = pb.DeleteAddressRequest(user_id=me(), address_id=address_id)
    await users.write(users.stub.DeleteAddress, wanted)
    return empty()
