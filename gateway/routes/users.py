"""Routes of the caller's account."""

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

    The account gets the role `customer`. This does not start a session. If the e-mail address already has an account,
    the response is the same, and the owner gets a mail. With REGISTRATION=open, the response is 409 EMAIL_TAKEN
    instead. The number of registrations in 15 minutes is limited, for each network address and in total.
    """
    command = pb.RegisterRequest(
        email=body.email, password=body.password, name=body.name, client_address=context.address
    )
    return models.user((await users.write(users.stub.Register, command)).user)


@router.get("/v1/users/me", access=Access.SIGNED_IN, etag=True)
async def read_me(caller: Caller, users: UsersClient) -> models.User:
    """Read the caller's account."""
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
    """Export all personal data of the caller.

    Returns one JSON document with the data of all domains. This requires a login within the last five minutes, and only
    a few exports an hour are allowed. If the connection breaks, the document is incomplete and not valid JSON.
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
    """Change the caller's account.

    Absent fields stay unchanged. A new e-mail address requires `current_password` or a login within the last five
    minutes. It takes effect when the code that is mailed to it is confirmed (POST /v1/email-changes/confirm). Sending
    the current address cancels a pending change. At most five changes of the address can be requested in 15 minutes.
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
    """Confirm a new e-mail address with the code that was mailed to it.

    The code is valid once, for 24 hours. The former address gets a mail with a code that can undo the change for seven
    days.
    """
    await users.write(users.stub.ConfirmEmailChange, pb.ConfirmEmailChangeRequest(token=body.token))


@router.post(
    "/v1/email-changes/undo", access=Access.PUBLIC, errors=[errors.MAILED_TOKEN_INVALID, errors.VERSION_MISMATCH]
)
async def undo_email_change(body: models.AnswerEmailChange, users: UsersClient) -> None:
    """Restore an account's former e-mail address with the code that was mailed to it.

    The code is valid once, for seven days. All sessions end, and the password becomes invalid. A code for setting a new
    password is mailed to the restored address.
    """
    await users.write(users.stub.UndoEmailChange, pb.UndoEmailChangeRequest(token=body.token))


@router.delete("/v1/users/me", access=Access.SIGNED_IN, errors=[*_REAUTHENTICATION, errors.LAST_ADMIN])
async def delete_me(caller: Caller, users: UsersClient, if_match: Precondition) -> None:
    """Delete the caller's account.

    This requires a login within the last five minutes. All domains erase the data that identify the person.
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
    """Change the caller's password.

    All sessions end. If the current password is wrong, the response is 401 INVALID_CREDENTIALS.
    """
    command = pb.ChangePasswordRequest(
        user_id=caller.subject, current_password=body.current_password, new_password=body.new_password
    )
    await users.write(users.stub.ChangePassword, command)


@router.post("/v1/users/me/email-verification", access=Access.SIGNED_IN, errors=[errors.TOO_MANY_ATTEMPTS])
async def request_email_verification(caller: Caller, users: UsersClient) -> None:
    """Request a mail with a code that verifies the account's e-mail address.

    Nothing is sent if the address is already verified.
    """
    command = pb.RequestEmailVerificationRequest(user_id=caller.subject)
    await users.write(users.stub.RequestEmailVerification, command)


@router.post("/v1/email-verifications", access=Access.PUBLIC, errors=[errors.MAILED_TOKEN_INVALID])
async def verify_email(body: models.VerifyEmail, users: UsersClient) -> None:
    """Verify an e-mail address with the code that was mailed to it.

    The code is valid once, for 24 hours.
    """
    await users.write(users.stub.VerifyEmail, pb.VerifyEmailRequest(token=body.token))


@router.get("/v1/users/me/addresses", access=Access.SIGNED_IN, response_model=models.AddressPage, etag=True)
async def list_addresses(caller: Caller, users: UsersClient) -> Response:
    """List the caller's addresses."""
    found = await users.read(users.stub.ListAddresses, pb.ListAddressesRequest(user_id=caller.subject))
    page: models.AddressPage = {
        "items": [view(models.Address, address) for address in found.addresses],
        "next_cursor": None,
    }
    # The list has no version, so its ETag is a digest of its content.
    digest = hashlib.sha256(found.SerializeToString(deterministic=True)).hexdigest()[:32]
    return JsonResponse(page, etag=f'"{digest}"')


@contextmanager
def _violations_of_the_body() -> Iterator[None]:
    """Translate the field paths of violations from the service's form (`address.city`) to the body's (`city`)."""
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

    An account can have at most 20.
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
