"""The caller's own account."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Response

from functions.runtime.errors import ServiceError
from gateway import api_errors as errors
from gateway.data_export import DataExport, Export
from gateway.dependencies import AllClients, Caller, Context, UsersClient
from gateway.limits import EXPORT_COST, PASSWORD_COST
from gateway.models import users as models
from gateway.models.common import view
from gateway.preconditions import Precondition
from gateway.responses import JsonResponse
from gateway.routes.parameters import AddressId
from gateway.routing import Access, ApiRouter
from proto.shop.users.v1 import users_pb2 as pb

router = ApiRouter("users")

_REAUTHENTICATION = (errors.REAUTHENTICATION_REQUIRED, errors.INVALID_CREDENTIALS)


async def _read(users: UsersClient, user_id: str) -> pb.User:
    return (await users.read(users.stub.GetUser, pb.GetUserRequest(user_id=user_id))).user


@router.post(
    "/v1/users",
    access=Access.PUBLIC,
    status_code=201,
    cost=PASSWORD_COST,
    etag=True,
    location="/v1/users/me",
    errors=[errors.WEAK_PASSWORD, errors.EMAIL_TAKEN, errors.TOO_MANY_REGISTRATIONS],
)
async def register_user(body: models.Register, context: Context, users: UsersClient) -> models.User:
    """Create an account.

    The new account has the role `customer`. A session is started separately. An e-mail that has an account already gets
    the same answer, and its owner a message; where the shop is set to tell (REGISTRATION=open), 409 EMAIL_TAKEN.
    A network address, and all together, register only so many in 15 minutes.
    """
    command = pb.RegisterRequest(
        email=body.email, password=body.password, name=body.name, client_address=context.address
    )
    return models.user((await users.write(users.stub.Register, command)).user)


@router.get("/v1/users/me", access=Access.SIGNED_IN, etag=True)
async def read_me(caller: Caller, users: UsersClient) -> models.User:
    """Read one's own account."""
    return models.user(await _read(users, caller.subject))


@router.get(
    "/v1/users/me/export",
    access=Access.SIGNED_IN,
    response_model=Export,
    response_headers=["Content-Disposition"],
    cost=EXPORT_COST,
    deadline_seconds=30,
    errors=_REAUTHENTICATION,
)
async def export_me(caller: Caller, context: Context, clients: AllClients) -> Response:
    """Export all that is kept about oneself.

    One document from every domain, complete, however long; a few times an hour, and within five minutes of a login. One
    that breaks off is not complete.
    """
    users = clients.users
    own = await users.read(users.stub.ExportUser, pb.ExportUserRequest(user_id=caller.subject))
    context.count(context.state.export_rates, caller.subject)
    return await DataExport.open(clients, caller.subject, own)


@router.patch(
    "/v1/users/me",
    access=Access.SIGNED_IN,
    etag=True,
    errors=[*_REAUTHENTICATION, errors.EMAIL_TAKEN, errors.TOO_MANY_ATTEMPTS],
)
async def update_me(body: models.UpdateUser, caller: Caller, users: UsersClient, if_match: Precondition) -> models.User:
    """Change one's own account.

    What is absent stays as it is. Another e-mail needs `current_password`, or a login of the last five minutes. It is
    pending until the code that is mailed to it came back (POST /v1/email-changes/confirm); the present e-mail cancels
    it. At most five are tried in 15 minutes.
    """

    async def current() -> int:
        return (await _read(users, caller.subject)).version

    command = pb.UpdateUserRequest(
        user_id=caller.subject,
        name=body.name,
        email=body.email,
        version=await if_match.version(current),
        current_password=body.current_password or "",
    )
    return models.user((await users.write(users.stub.UpdateUser, command)).user)


@router.post(
    "/v1/email-changes/confirm",
    access=Access.PUBLIC,
    errors=[errors.MAILED_TOKEN_INVALID, errors.EMAIL_TAKEN, errors.VERSION_MISMATCH, errors.TOO_MANY_EMAIL_CHANGES],
)
async def confirm_email_change(body: models.AnswerEmailChange, users: UsersClient) -> None:
    """Confirm a new e-mail by the code that was mailed to it.

    It works once, for a day. The former address is told, and gets a code that undoes the change for seven days.
    """
    await users.write(users.stub.ConfirmEmailChange, pb.ConfirmEmailChangeRequest(token=body.token))


@router.post(
    "/v1/email-changes/undo", access=Access.PUBLIC, errors=[errors.MAILED_TOKEN_INVALID, errors.VERSION_MISMATCH]
)
async def undo_email_change(body: models.AnswerEmailChange, users: UsersClient) -> None:
    """Give an account back to its former e-mail by the code that was mailed to it.

    It works once, for seven days. Every session ends, no password is right any more, and a code for a new one is mailed
    to the address that is back.
    """
    await users.write(users.stub.UndoEmailChange, pb.UndoEmailChangeRequest(token=body.token))


@router.delete("/v1/users/me", access=Access.SIGNED_IN, errors=[*_REAUTHENTICATION, errors.LAST_ADMIN])
async def delete_me(caller: Caller, users: UsersClient, if_match: Precondition) -> None:
    """Delete one's own account.

    Within five minutes of a login only. Everything that names the person is erased, everywhere.
    """

    async def current() -> int:
        return (await _read(users, caller.subject)).version

    await if_match.require(current)
    await users.write(users.stub.DeleteUser, pb.DeleteUserRequest(user_id=caller.subject))


@router.put(
    "/v1/users/me/password",
    access=Access.SIGNED_IN,
    cost=PASSWORD_COST,
    errors=[errors.WEAK_PASSWORD, errors.INVALID_CREDENTIALS, errors.TOO_MANY_ATTEMPTS],
)
async def change_password(body: models.ChangePassword, caller: Caller, users: UsersClient) -> None:
    """Change the password.

    Every session ends. A wrong current password answers 401 INVALID_CREDENTIALS.
    """
    command = pb.ChangePasswordRequest(
        user_id=caller.subject, current_password=body.current_password, new_password=body.new_password
    )
    await users.write(users.stub.ChangePassword, command)


@router.post("/v1/users/me/email-verification", access=Access.SIGNED_IN, errors=[errors.TOO_MANY_ATTEMPTS])
async def request_email_verification(caller: Caller, users: UsersClient) -> None:
    """Have a code mailed that verifies one's address.

    Nothing is sent for one that is verified.
    """
    command = pb.RequestEmailVerificationRequest(user_id=caller.subject)
    await users.write(users.stub.RequestEmailVerification, command)


@router.post("/v1/email-verifications", access=Access.PUBLIC, errors=[errors.MAILED_TOKEN_INVALID])
async def verify_email(body: models.VerifyEmail, users: UsersClient) -> None:
    """Verify an address by the mailed code.

    It works once, for a day.
    """
    await users.write(users.stub.VerifyEmail, pb.VerifyEmailRequest(token=body.token))


@router.get("/v1/users/me/addresses", access=Access.SIGNED_IN, response_model=models.AddressPage, etag=True)
async def list_addresses(caller: Caller, users: UsersClient) -> Response:
    """List one's own addresses."""
    found = await users.read(users.stub.ListAddresses, pb.ListAddressesRequest(user_id=caller.subject))
    page: models.AddressPage = {
        "items": [view(models.Address, address) for address in found.addresses],
        "next_cursor": None,
    }
    # The list has no version, so that its tag is made of its content.
    digest = hashlib.sha256(found.SerializeToString(deterministic=True)).hexdigest()[:32]
    return JsonResponse(page, etag=f'"{digest}"')


@contextmanager
def _violations_of_the_body() -> Iterator[None]:
    """Name the body's fields in violations: for the service the body is the field `address`."""
    try:
        yield
    except ServiceError as error:
        error.violations = tuple(v._replace(field=v.field.removeprefix("address.")) for v in error.violations)
        raise


@router.post(
    "/v1/users/me/addresses",
    access=Access.SIGNED_IN,
    status_code=201,
    location="/v1/users/me/addresses/{id}",
    errors=[errors.TOO_MANY_ADDRESSES],
)
async def add_address(body: models.AddressIn, caller: Caller, users: UsersClient) -> models.Address:
    """Add an address.

    At most 20 are kept.
    """
    command = pb.AddAddressRequest(user_id=caller.subject, address=pb.Address(**body.model_dump()))
    with _violations_of_the_body():
        return view(models.Address, (await users.write(users.stub.AddAddress, command)).address)


@router.put("/v1/users/me/addresses/{address_id}", access=Access.SIGNED_IN, errors=[errors.ADDRESS_NOT_FOUND])
async def replace_address(
    address_id: AddressId, body: models.AddressIn, caller: Caller, users: UsersClient
) -> models.Address:
    """Replace an address."""
    address = pb.Address(id=address_id, **body.model_dump())
    command = pb.UpdateAddressRequest(user_id=caller.subject, address=address)
    with _violations_of_the_body():
        return view(models.Address, (await users.write(users.stub.UpdateAddress, command)).address)


@router.delete("/v1/users/me/addresses/{address_id}", access=Access.SIGNED_IN, errors=[errors.ADDRESS_NOT_FOUND])
async def delete_address(address_id: AddressId, caller: Caller, users: UsersClient) -> None:
    """Remove an address."""
    command = pb.DeleteAddressRequest(user_id=caller.subject, address_id=address_id)
    await users.write(users.stub.DeleteAddress, command)
