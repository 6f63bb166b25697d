"""What notifications asks users: how to reach somebody, each time anew, so that no address is kept here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from functions.runtime.errors import Code, ServiceError
from functions.runtime.grpc_client import GrpcClient


@dataclass(frozen=True)
class Contact:
    """How to reach a person; shown nowhere."""

    user_id: str
    email: str = field(repr=False)
    name: str = field(default="", repr=False)
    deliverable: bool = True
    verified: bool = True


@dataclass(frozen=True)
class MailedCode:
    """A token to be mailed at once, and the address that it is for; shown nowhere."""

    token: str = field(repr=False)
    email: str = field(repr=False)


class Users(Protocol):
    """The users service, as notifications needs it. Raises UNAVAILABLE when it does not answer."""

    async def contact(self, user_id: str) -> Contact | None:
        """How to reach this person; None for one who has no account."""

    async def administrators(self) -> list[str]:
        """The ids of all administrators."""

    async def mailed_token(self, user_id: str, purpose: str, change_id: str = "") -> MailedCode | None:
        """Issue a token to be mailed at once; None when there is nothing to prove any more.

        `change_id` names the change of an address that the token undoes.
        """


class UsersPeer:
    """Users over gRPC, with this service's own token."""

    def __init__(self, peer: GrpcClient) -> None:
        self._peer = peer

    async def contact(self, user_id: str) -> Contact | None:
        """See Users."""
        contacts = await self._ask(user_ids=[user_id])
        return next((contact for contact in contacts if contact.user_id == user_id), None)

    async def administrators(self) -> list[str]:
        """See Users."""
        return [contact.user_id for contact in await self._ask(admins=True)]

    async def mailed_token(self, user_id: str, purpose: str, change_id: str = "") -> MailedCode | None:
        """See Users."""
        from proto.shop.users.v1 import users_pb2 as pb  # see _ask
        from proto.shop.users.v1 import users_pb2_grpc

        stub = self._peer.stub(users_pb2_grpc.UsersServiceStub)
        request = pb.IssueMailedTokenRequest(
            user_id=user_id, purpose=pb.Purpose.Value(f"PURPOSE_{purpose}"), change_id=change_id
        )
        try:
            # Repeating is safe: only the token that goes out last has to work.
            answer = await self._peer.call(stub.IssueMailedToken, request, as_service=True, retry=True)
        except ServiceError as error:
            if error.code is Code.NOT_FOUND:
                return None
            raise
        return MailedCode(answer.token, answer.email)

    async def _ask(self, user_ids: Sequence[str] = (), admins: bool = False) -> list[Contact]:
        from proto.shop.users.v1 import (
            users_pb2 as pb,  # at the first question: the event role starts without gRPC
        )
        from proto.shop.users.v1 import users_pb2_grpc

        stub = self._peer.stub(users_pb2_grpc.UsersServiceStub)
        request = pb.GetContactsRequest(user_ids=user_ids, admins=admins)
        answer = await self._peer.call(stub.GetContacts, request, as_service=True, retry=True)
        return [Contact(c.user_id, c.email, c.name, c.deliverable, c.verified) for c in answer.contacts]
