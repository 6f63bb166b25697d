"""Calls to the users service for contacts and tokens. They are made at each sending, so no address is stored here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from functions.runtime.errors import Code, ServiceError
from functions.runtime.grpc_client import GrpcClient


@dataclass(frozen=True)
class Contact:
    """The address and name of a user, and the state of the address. They are never shown or logged."""

    user_id: str
    email: str = field(repr=False)
    name: str = field(default="", repr=False)
    deliverable: bool = True
    verified: bool = True


@dataclass(frozen=True)
class MailedCode:
    """A token to be mailed at once, and its address. They are never shown or logged."""

    token: str = field(repr=False)
    email: str = field(repr=False)


class Users(Protocol):
    """The users service, as notifications needs it. Every method raises UNAVAILABLE if the service does not answer."""

    async def contact(self, user_id: str) -> Contact | None:
        """Return the contact of a user, or None if the account does not exist."""

    async def administrators(self) -> list[str]:
        """Return the ids of all administrators."""

    async def mailed_token(self, user_id: str, purpose: str, change_id: str = "") -> MailedCode | None:
        """Issue a token to be mailed at once, or return None if it is no longer needed.

        `change_id` identifies the change of address that the token undoes.
        """


class UsersClient:
    """The users service over gRPC, called with this service's own token."""

    def __init__(self, client: GrpcClient) -> None:
        self._client = client

    async def contact(self, user_id: str) -> Contact | None:
        contacts = await self._contacts(user_ids=[user_id])
        return next((contact for contact in contacts if contact.user_id == user_id), None)

    async def administrators(self) -> list[str]:
        return [contact.user_id for contact in await self._contacts(admins=True)]

    async def mailed_token(self, user_id: str, purpose: str, change_id: str = "") -> MailedCode | None:
        # Imported at the first call, so that a process with ROLE=events starts without gRPC.
        from proto.shop.users.v1 import users_pb2, users_pb2_grpc

        stub = self._client.stub(users_pb2_grpc.UsersServiceStub)
        request = users_pb2.IssueMailedTokenRequest(
            user_id=user_id, purpose=users_pb2.Purpose.Value(f"PURPOSE_{purpose}"), change_id=change_id
        )
        try:
            # A retry is safe, because only the token that is sent last has to be valid.
            answer = await self._client.call(stub.IssueMailedToken, request, as_service=True, retry=True)
        except ServiceError as error:
            if error.code is Code.NOT_FOUND:
                return None
            raise
        return MailedCode(answer.token, answer.email)

    async def _contacts(self, user_ids: Sequence[str] = (), admins: bool = False) -> list[Contact]:
        from proto.shop.users.v1 import users_pb2, users_pb2_grpc  # see mailed_token

        stub = self._client.stub(users_pb2_grpc.UsersServiceStub)
        request = users_pb2.GetContactsRequest(user_ids=user_ids, admins=admins)
        answer = await self._client.call(stub.GetContacts, request, as_service=True, retry=True)
        return [Contact(c.user_id, c.email, c.name, c.deliverable, c.verified) for c in answer.contacts]
