"""The gRPC service of users. It converts proto messages to commands, and entities to proto messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from functions.runtime.errors import invalid
from functions.runtime.identity import ADMINS, ANYBODY, SIGNED_IN, current_caller, services
from functions.runtime.messages import from_message, optional, seconds, seconds_since_1970, to_message
from functions.users import domain
from functions.users.auth.authenticator import LogIn
from functions.users.auth.challenges import Purpose
from functions.users.auth.email_change import EmailChangeService
from functions.users.auth.recovery import IssueMailedToken, RecoveryService, RequestPasswordReset, ResetPassword
from functions.users.auth.sessions import SessionsService
from functions.users.auth.signing_keys import SigningKeysService
from functions.users.service import (
    AddAddress,
    ChangePassword,
    DeleteAddress,
    DeleteUser,
    ExportUser,
    GetContacts,
    ListUsers,
    RegisterUser,
    SetRoles,
    UpdateAddress,
    UpdateUser,
    UsersService,
)
from proto.shop.users.v1 import users_pb2 as pb
from proto.shop.users.v1 import users_pb2_grpc

ACCESS = {
    "Register": ANYBODY,
    "Login": ANYBODY,
    "Refresh": ANYBODY,
    "Logout": ANYBODY,
    "GetJwks": ANYBODY,
    "RequestPasswordReset": ANYBODY,
    "ResetPassword": ANYBODY,
    "VerifyEmail": ANYBODY,
    "ConfirmEmailChange": ANYBODY,
    "UndoEmailChange": ANYBODY,
    "ExportUser": SIGNED_IN,
    "RequestEmailVerification": SIGNED_IN,
    "IssueMailedToken": services("notifications"),
    "GetUser": SIGNED_IN,
    "ListUsers": ADMINS,
    "UpdateUser": SIGNED_IN,
    "ChangePassword": SIGNED_IN,
    "SetRoles": ADMINS,
    "DeleteUser": SIGNED_IN,
    "ListAddresses": SIGNED_IN,
    "AddAddress": SIGNED_IN,
    "UpdateAddress": SIGNED_IN,
    "DeleteAddress": SIGNED_IN,
    "GetContacts": services("notifications"),
    "RotateKeys": ADMINS,
}
"""Who may call each RPC. The use cases make further checks."""

_PURPOSES = {pb.Purpose.Value(f"PURPOSE_{purpose}"): purpose for purpose in Purpose}


class UsersServicer(users_pb2_grpc.UsersServiceServicer):
    """shop.users.v1.UsersService. users.proto describes the methods.

    `client_address_header` is the lower-case name of the metadata in which the ingress sends a client's address.
    """

    def __init__(
        self,
        users: UsersService,
        sessions: SessionsService,
        recovery: RecoveryService,
        email_changes: EmailChangeService,
        keys: SigningKeysService,
        *,
        client_address_header: str,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._recovery = recovery
        self._email_changes = email_changes
        self._keys = keys
        self._client_address_header = client_address_header

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        command = RegisterUser(request.email, request.password, request.name, self._client_address(request, context))
        return pb.RegisterResponse(user=_user(await self._users.register(command)))

    async def Login(self, request: pb.LoginRequest, context: Any) -> pb.LoginResponse:
        command = LogIn(request.email, request.password, self._client_address(request, context), request.device_token)
        return pb.LoginResponse(session=pb.Session(**vars(await self._sessions.login(command))))

    async def Refresh(self, request: pb.RefreshRequest, context: Any) -> pb.RefreshResponse:
        tokens = await self._sessions.refresh(request.refresh_token)
        return pb.RefreshResponse(session=pb.Session(**vars(tokens)))

    async def Logout(self, request: pb.LogoutRequest, context: Any) -> pb.LogoutResponse:
        await self._sessions.logout(request.refresh_token)
        return pb.LogoutResponse()

    async def GetUser(self, request: pb.GetUserRequest, context: Any) -> pb.GetUserResponse:
        user = await self._users.get(request.user_id, current_caller())
        return pb.GetUserResponse(user=await self._profile(user))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        page = await self._users.list_users(ListUsers(request.limit, request.cursor), current_caller())
        return pb.ListUsersResponse(users=map(_user, page.items), next_cursor=page.next_cursor or "")

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Any) -> pb.UpdateUserResponse:
        command = UpdateUser(
            request.user_id,
            name=optional(request, "name"),
            email=optional(request, "email"),
            version=optional(request, "version"),
            current_password=request.current_password,
        )
        user = await self._users.update(command, current_caller())
        return pb.UpdateUserResponse(user=await self._profile(user))

    async def ConfirmEmailChange(
        self, request: pb.ConfirmEmailChangeRequest, context: Any
    ) -> pb.ConfirmEmailChangeResponse:
        await self._email_changes.confirm(request.token)
        return pb.ConfirmEmailChangeResponse()

    async def UndoEmailChange(self, request: pb.UndoEmailChangeRequest, context: Any) -> pb.UndoEmailChangeResponse:
        await self._email_changes.undo(request.token)
        return pb.UndoEmailChangeResponse()

    async def ExportUser(self, request: pb.ExportUserRequest, context: Any) -> pb.ExportUserResponse:
        command = ExportUser(request.user_id, request.current_password)
        user, book = await self._users.export(command, current_caller())
        return pb.ExportUserResponse(user=await self._profile(user), addresses=map(_address, book.addresses))

    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Any) -> pb.ChangePasswordResponse:
        command = ChangePassword(request.user_id, request.current_password, request.new_password)
        await self._users.change_password(command, current_caller())
        return pb.ChangePasswordResponse()

    async def RequestPasswordReset(
        self, request: pb.RequestPasswordResetRequest, context: Any
    ) -> pb.RequestPasswordResetResponse:
        command = RequestPasswordReset(request.email, self._client_address(request, context))
        await self._recovery.request_password_reset(command)
        return pb.RequestPasswordResetResponse()

    async def ResetPassword(self, request: pb.ResetPasswordRequest, context: Any) -> pb.ResetPasswordResponse:
        await self._recovery.reset_password(ResetPassword(request.token, request.new_password))
        return pb.ResetPasswordResponse()

    async def RequestEmailVerification(
        self, request: pb.RequestEmailVerificationRequest, context: Any
    ) -> pb.RequestEmailVerificationResponse:
        await self._recovery.request_verification(request.user_id, current_caller())
        return pb.RequestEmailVerificationResponse()

    async def VerifyEmail(self, request: pb.VerifyEmailRequest, context: Any) -> pb.VerifyEmailResponse:
        await self._recovery.verify_email(request.token)
        return pb.VerifyEmailResponse()

    async def IssueMailedToken(self, request: pb.IssueMailedTokenRequest, context: Any) -> pb.IssueMailedTokenResponse:
        purpose = _PURPOSES.get(request.purpose)
        if purpose is None:
            raise invalid("The purpose is not valid.", ("purpose", "must be a defined purpose"))
        command = IssueMailedToken(request.user_id, purpose, request.change_id)
        code = await self._recovery.issue_mailed_token(command, current_caller())
        return pb.IssueMailedTokenResponse(token=code.token, email=code.email)

    async def SetRoles(self, request: pb.SetRolesRequest, context: Any) -> pb.SetRolesResponse:
        command = SetRoles(request.user_id, request.roles, request.current_password)
        return pb.SetRolesResponse(user=_user(await self._users.set_roles(command, current_caller())))

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Any) -> pb.DeleteUserResponse:
        await self._users.delete(DeleteUser(request.user_id, request.current_password), current_caller())
        return pb.DeleteUserResponse()

    async def ListAddresses(self, request: pb.ListAddressesRequest, context: Any) -> pb.ListAddressesResponse:
        found = await self._users.list_addresses(request.user_id, current_caller())
        return pb.ListAddressesResponse(addresses=map(_address, found))

    async def AddAddress(self, request: pb.AddAddressRequest, context: Any) -> pb.AddAddressResponse:
        command = AddAddress(request.user_id, from_message(domain.Address, request.address))
        added = await self._users.add_address(command, current_caller())
        return pb.AddAddressResponse(address=_address(added))

    async def UpdateAddress(self, request: pb.UpdateAddressRequest, context: Any) -> pb.UpdateAddressResponse:
        command = UpdateAddress(request.user_id, from_message(domain.Address, request.address))
        updated = await self._users.update_address(command, current_caller())
        return pb.UpdateAddressResponse(address=_address(updated))

    async def DeleteAddress(self, request: pb.DeleteAddressRequest, context: Any) -> pb.DeleteAddressResponse:
        command = DeleteAddress(request.user_id, request.address_id)
        await self._users.delete_address(command, current_caller())
        return pb.DeleteAddressResponse()

    async def GetContacts(self, request: pb.GetContactsRequest, context: Any) -> pb.GetContactsResponse:
        query = GetContacts(request.user_ids, request.admins)
        found = await self._users.get_contacts(query, current_caller())
        return pb.GetContactsResponse(contacts=_contacts(found))

    async def GetJwks(self, request: pb.GetJwksRequest, context: Any) -> pb.GetJwksResponse:
        asked = request.HasField("revoked_since")
        since = seconds_since_1970(request.revoked_since, "revoked_since") if asked else None
        found = await self._keys.key_set(since, request.cursor)
        return pb.GetJwksResponse(
            jwks=pb.Jwks(json=found.jwks),
            revocations=[
                pb.Revocation(
                    digest=revoked.digest, revoked_at=seconds(revoked.at), void_before=seconds(revoked.void_before)
                )
                for revoked in found.revoked
            ],
            next_cursor=found.next_cursor,
            revoked_as_of=seconds(found.as_of),
        )

    async def RotateKeys(self, request: pb.RotateKeysRequest, context: Any) -> pb.RotateKeysResponse:
        return pb.RotateKeysResponse(jwks=pb.Jwks(json=await self._keys.rotate(current_caller())))

    def _client_address(
        self, request: pb.RegisterRequest | pb.LoginRequest | pb.RequestPasswordResetRequest, context: Any
    ) -> str:
        """Return the client address from the metadata of the ingress or, without it, from the gateway's request."""
        stated = dict(context.invocation_metadata() or ()).get(self._client_address_header)
        return str(stated or request.client_address)

    async def _profile(self, user: domain.User) -> pb.User:
        """Return the account, including an e-mail address that is not confirmed yet."""
        return _user(user, await self._email_changes.pending_email(user))


def _user(user: domain.User, pending_email: str = "") -> pb.User:
    return to_message(pb.User, user, pending_email=pending_email)


def _address(address: domain.Address) -> pb.Address:
    return to_message(pb.Address, address)


def _contacts(users: Iterable[domain.User]) -> Iterable[pb.Contact]:
    return (
        pb.Contact(
            user_id=user.id,
            email=user.email,
            # Without verification a stranger may have chosen the name, but the mail goes to the owner of the address.
            name=user.name if user.email_verified else "",
            deliverable=user.email_deliverable,
            verified=user.email_verified,
        )
        for user in users
    )
