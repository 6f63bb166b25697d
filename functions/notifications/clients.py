"""Calls to the users service: contacts and tokens, asked for at each sending, so that no address is stored here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from functions.runtime.errors import Code, ServiceError
from functions.runtime.grpc_client import GrpcClient


@dataclass(frozen=True)
class Contact:
    """How to reach a user; never shown or logged."""

    user_id: str
    email: str = field(repr=False)
    name: str = field(default="", repr=False)
    deliverable: bool = True
    verified: bool = True


@dataclass(frozen=True)
class MailedCode:
    """A token to be mailed at once, and the address that it is for; never shown or logged."""

    token: str = field(repr=False)
    email: str = field(repr=False)


class Users(Protocol):
    """The users service, as notifications needs it. Raises UNAVAILABLE when it does not answer."""

    async def contact(self, user_id: str) -> Contact | None:
        """Return how to reach a user; None if the account does not exist."""

    async def administrators(self) -> list[str]:
        """Return the ids of all administrators."""

    async def mailed_token(self, user_id: str, purpose: str, change_id: str = "") -> MailedCode | None:
        """Issue a token to be mailed at once; None if there is nothing to prove any more.

        `change_id` is the change of an address that the token undoes.
        """


class UsersClient:
    """The users service over gRPC, called with this service's own token."""

    def __init__(self, client: GrpcClient) -> None:
        self._client = client

    async def contact(self, user_id: str) -> Contact | None:
        """See Users."""
        contacts = await self._contacts(user_ids=[user_id])
        return next((contact for contact in contacts if contact.user_id == user_id), None)

    async def administrators(self) -> list[str]:
        """See Users."""
        return [contact.user_id for contact in await self._contacts(admins=True)]

    async def mailed_token(self, user_id: str, purpose: str, change_id: str = "") -> MailedCode | None:
        """See Users."""
        # Imported at the first call: the event role starts without gRPC.
        from proto.shop.users.v1 import users_pb2, users_pb2_grpc

        stub = self._client.stub(users_pb2_grpc.UsersServiceStub)
        request = users_pb2.IssueMailedTokenRequest(
            user_id=user_id, purpose=users_pb2.Purpose.Value(f"PURPOSE_{purpose}"), change_id=change_id
        )
        try:
            # A retry is safe: only the token that is sent last has to work.
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
