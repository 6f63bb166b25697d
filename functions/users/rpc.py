"""The gRPC door: proto to use case and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from functions.runtime.access import ADMINS, ANYBODY, SIGNED_IN, services
from functions.runtime.clock import Clock
from functions.runtime.errors import invalid
from functions.runtime.identity import current_caller
from functions.runtime.messages import seconds, seconds_since_1970, timestamp
from functions.runtime.store.port import Store
from functions.users import addresses, domain, email_change, recovery, service, sessions
from functions.users.challenge import Purpose
from functions.users.devices import Devices
from functions.users.keys import KeyRing
from functions.users.passwords import Hasher
from functions.users.proof import LoginAttempt, Proof
from functions.users.throttle import Throttle
from functions.users.tokens import AccessTokens, Tokens
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
"""Who may call; the use cases ask for more."""

_PURPOSES = {pb.Purpose.Value(f"PURPOSE_{purpose}"): purpose for purpose in Purpose}


class Users(users_pb2_grpc.UsersServiceServicer):
    """shop.users.v1.UsersService."""

    def __init__(
        self,
        *,
        store: Store,
        hasher: Hasher,
        keys: KeyRing,
        tokens: AccessTokens,
        proof: Proof,
        throttle: Throttle,
        devices: Devices,
        clock: Clock,
        discreet: bool,
        address_header: str,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._keys = keys
        self._tokens = tokens
        self._proof = proof
        self._throttle = throttle
        self._devices = devices
        self._clock = clock
        self._discreet = discreet
        self._address_header = address_header

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        """See users.proto, as for all below."""
        wanted = service.Registration(
            request.email, request.password, request.name, client_address=self._address(request, context)
        )
        registered = await service.register(
            wanted,
            discreet=self._discreet,
            store=self._store,
            hasher=self._hasher,
            throttle=self._throttle,
            clock=self._clock,
        )
        return pb.RegisterResponse(user=_user(registered))

    async def Login(self, request: pb.LoginRequest, context: Any) -> pb.LoginResponse:
        attempt = LoginAttempt(
            request.email, request.password, self._address(request, context), request.device_token
        )
        return pb.LoginResponse(
            session=_session(
                await sessions.login(
                    attempt,
                    store=self._store,
                    proof=self._proof,
                    tokens=self._tokens,
                    devices=self._devices,
                    clock=self._clock,
                )
            )
        )

    def _address(
        self, request: pb.RegisterRequest | pb.LoginRequest | pb.RequestPasswordResetRequest, context: Any
    ) -> str:
        """What the ingress says of a client that calls directly; the gateway's word is in its request."""
        stated = dict(context.invocation_metadata() or ()).get(self._address_header)
        return str(stated or request.client_address)

    async def Refresh(self, request: pb.RefreshRequest, context: Any) -> pb.RefreshResponse:
        return pb.RefreshResponse(
            session=_session(
                await sessions.refresh(
                    request.refresh_token, store=self._store, tokens=self._tokens, clock=self._clock
                )
            )
        )

    async def Logout(self, request: pb.LogoutRequest, context: Any) -> pb.LogoutResponse:
        await sessions.logout(request.refresh_token, store=self._store, clock=self._clock)
        return pb.LogoutResponse()

    async def GetUser(self, request: pb.GetUserRequest, context: Any) -> pb.GetUserResponse:
        user = await service.get_user(request.user_id, current_caller(), store=self._store)
        return pb.GetUserResponse(user=await self._profile(user))

    async def _profile(self, user: domain.User) -> pb.User:
        """Return the account with the address that waits for its code."""
        return _user(user, await email_change.pending_email(user, store=self._store, clock=self._clock))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        page = await service.list_users(request.limit, request.cursor, current_caller(), store=self._store)
        return pb.ListUsersResponse(users=map(_user, page.items), next_cursor=page.next_cursor or "")

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Any) -> pb.UpdateUserResponse:
        wanted = service.ProfileChange(
            name=request.name if request.HasField("name") else None,
            email=request.email if request.HasField("email") else None,
            version=request.version if request.HasField("version") else None,
            current_password=request.current_password,
        )
        user = await service.update_user(
            request.user_id,
            wanted,
            current_caller(),
            store=self._store,
            throttle=self._throttle,
            proof=self._proof,
            clock=self._clock,
        )
        return pb.UpdateUserResponse(user=await self._profile(user))

    async def ConfirmEmailChange(
        self, request: pb.ConfirmEmailChangeRequest, context: Any
    ) -> pb.ConfirmEmailChangeResponse:
        await email_change.confirm(request.token, store=self._store, clock=self._clock)
        return pb.ConfirmEmailChangeResponse()

    async def UndoEmailChange(
        self, request: pb.UndoEmailChangeRequest, context: Any
    ) -> pb.UndoEmailChangeResponse:
        await email_change.undo(request.token, store=self._store, clock=self._clock)
        return pb.UndoEmailChangeResponse()

    async def ExportUser(self, request: pb.ExportUserRequest, context: Any) -> pb.ExportUserResponse:
        user, book = await service.export_user(
            request.user_id,
            current_caller(),
            current_password=request.current_password,
            store=self._store,
            proof=self._proof,
        )
        return pb.ExportUserResponse(user=await self._profile(user), addresses=map(_address, book.addresses))

    async def ChangePassword(
        self, request: pb.ChangePasswordRequest, context: Any
    ) -> pb.ChangePasswordResponse:
        await sessions.change_password(
            request.user_id,
            request.current_password,
            request.new_password,
            current_caller(),
            store=self._store,
            hasher=self._hasher,
            proof=self._proof,
            clock=self._clock,
        )
        return pb.ChangePasswordResponse()

    async def RequestPasswordReset(
        self, request: pb.RequestPasswordResetRequest, context: Any
    ) -> pb.RequestPasswordResetResponse:
        email, address = request.email, self._address(request, context)
        await recovery.request_reset(
            email, address, store=self._store, throttle=self._throttle, clock=self._clock
        )
        return pb.RequestPasswordResetResponse()

    async def ResetPassword(self, request: pb.ResetPasswordRequest, context: Any) -> pb.ResetPasswordResponse:
        await recovery.reset_password(
            request.token, request.new_password, store=self._store, hasher=self._hasher, clock=self._clock
        )
        return pb.ResetPasswordResponse()

    async def RequestEmailVerification(
        self, request: pb.RequestEmailVerificationRequest, context: Any
    ) -> pb.RequestEmailVerificationResponse:
        await recovery.request_verification(
            request.user_id, current_caller(), store=self._store, clock=self._clock
        )
        return pb.RequestEmailVerificationResponse()

    async def VerifyEmail(self, request: pb.VerifyEmailRequest, context: Any) -> pb.VerifyEmailResponse:
        await recovery.verify_email(request.token, store=self._store, clock=self._clock)
        return pb.VerifyEmailResponse()

    async def IssueMailedToken(
        self, request: pb.IssueMailedTokenRequest, context: Any
    ) -> pb.IssueMailedTokenResponse:
        purpose = _PURPOSES.get(request.purpose)
        if purpose is None:
            raise invalid("The purpose is not valid.", ("purpose", "must be one that there is"))
        code = await recovery.issue(
            request.user_id,
            purpose,
            request.change_id,
            current_caller(),
            store=self._store,
            clock=self._clock,
        )
        return pb.IssueMailedTokenResponse(token=code.token, email=code.email)

    async def SetRoles(self, request: pb.SetRolesRequest, context: Any) -> pb.SetRolesResponse:
        return pb.SetRolesResponse(
            user=_user(
                await service.set_roles(
                    request.user_id,
                    request.roles,
                    current_caller(),
                    current_password=request.current_password,
                    store=self._store,
                    proof=self._proof,
                    clock=self._clock,
                )
            )
        )

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Any) -> pb.DeleteUserResponse:
        await service.delete_user(
            request.user_id,
            current_caller(),
            current_password=request.current_password,
            store=self._store,
            proof=self._proof,
            clock=self._clock,
        )
        return pb.DeleteUserResponse()

    async def ListAddresses(self, request: pb.ListAddressesRequest, context: Any) -> pb.ListAddressesResponse:
        found = await addresses.list_addresses(request.user_id, current_caller(), store=self._store)
        return pb.ListAddressesResponse(addresses=map(_address, found))

    async def AddAddress(self, request: pb.AddAddressRequest, context: Any) -> pb.AddAddressResponse:
        address = _from_address(request.address)
        return pb.AddAddressResponse(
            address=_address(
                await addresses.add_address(request.user_id, address, current_caller(), store=self._store)
            )
        )

    async def UpdateAddress(self, request: pb.UpdateAddressRequest, context: Any) -> pb.UpdateAddressResponse:
        address = _from_address(request.address)
        return pb.UpdateAddressResponse(
            address=_address(
                await addresses.update_address(request.user_id, address, current_caller(), store=self._store)
            )
        )

    async def DeleteAddress(self, request: pb.DeleteAddressRequest, context: Any) -> pb.DeleteAddressResponse:
        await addresses.delete_address(
            request.user_id, request.address_id, current_caller(), store=self._store
        )
        return pb.DeleteAddressResponse()

    async def GetContacts(self, request: pb.GetContactsRequest, context: Any) -> pb.GetContactsResponse:
        found = await service.contacts(request.user_ids, request.admins, current_caller(), store=self._store)
        return pb.GetContactsResponse(contacts=_contacts(found))

    async def GetJwks(self, request: pb.GetJwksRequest, context: Any) -> pb.GetJwksResponse:
        asked = request.HasField("revoked_since")
        since = seconds_since_1970(request.revoked_since, "revoked_since") if asked else None
        found = await self._keys.key_set(since, request.cursor)
        return pb.GetJwksResponse(
            jwks=pb.Jwks(json=found.jwks),
            revocations=[
                pb.Revocation(
                    digest=revoked.digest,
                    revoked_at=seconds(revoked.at),
                    void_before=seconds(revoked.void_before),
                )
                for revoked in found.revoked
            ],
            next_cursor=found.next_cursor,
            revoked_as_of=seconds(found.as_of),
        )

    async def RotateKeys(self, request: pb.RotateKeysRequest, context: Any) -> pb.RotateKeysResponse:
        return pb.RotateKeysResponse(
            jwks=pb.Jwks(json=await service.rotate_keys(current_caller(), keys=self._keys))
        )


def _user(user: domain.User, pending_email: str = "") -> pb.User:
    return pb.User(
        id=user.id,
        email=user.email,
        name=user.name,
        roles=user.roles,
        created_at=timestamp(user.created_at),
        version=user.version,
        email_deliverable=user.email_deliverable,
        updated_at=timestamp(user.updated_at),
        email_verified=user.email_verified,
        pending_email=pending_email,
    )


def _session(tokens: Tokens) -> pb.Session:
    return pb.Session(
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token,
        expires_in=tokens.expires_in,
        user_id=tokens.user_id,
        device_token=tokens.device_token,
    )


def _address(address: domain.Address) -> pb.Address:
    return pb.Address(
        id=address.id,
        name=address.name,
        line1=address.line1,
        line2=address.line2,
        city=address.city,
        state=address.state,
        postal_code=address.postal_code,
        country=address.country,
    )


def _from_address(address: pb.Address) -> domain.Address:
    return domain.Address(
        id=address.id,
        name=address.name,
        line1=address.line1,
        line2=address.line2,
        city=address.city,
        state=address.state,
        postal_code=address.postal_code,
        country=address.country,
    )


def _contacts(users: Iterable[domain.User]) -> Iterable[pb.Contact]:
    return (
        pb.Contact(
            user_id=user.id,
            email=user.email,
            # A stranger may have written it, to whoever has the address.
            name=user.name if user.email_verified else "",
            deliverable=user.email_deliverable,
            verified=user.email_verified,
        )
        for user in users
    )
