"""The gRPC methods through a real server: requests, answers, errors, and the callers that are admitted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from events.catalog import (
    NotificationBounced,
    SweepDue,
    UserDeleted,
    UserEmailChanged,
    UserRegistered,
)
from events.service_keys import PrivateKey
from functions.runtime.app import Function
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.inbox import inbox_record
from functions.runtime.rpc.errors import from_rpc_error
from functions.runtime.rpc.server import RpcServer
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import AlreadyDone
from functions.runtime.tests.support import bearer, service_key_files
from functions.runtime.tokens import ServiceTokens
from functions.users.bootstrap import bootstrap
from functions.users.rpc import ACCESS
from functions.users.settings import Settings
from functions.users.store import MAPPINGS
from functions.users.tests.accounts import PASSWORD
from proto.shop.users.v1 import users_pb2 as pb
from proto.shop.users.v1 import users_pb2_grpc

ADMIN = "root@example.com"


class Platform:
    """A users service behind a gRPC server, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.keys = service_key_files(folder, "users", "notifications", "orders")
        self.clock = ManualClock()
        self.store = MemoryStore(MAPPINGS, self.clock, lost_races=1)
        self.settings = Settings(
            admin_email=ADMIN,
            admin_password=PASSWORD,
            argon2_time_cost=1,
            argon2_memory_kib=8,
            login_failures_per_address=10,
            client_address_header="X-Client-Address",
            service_key_file=self.keys["users"]["SERVICE_KEY_FILE"],
            service_keys_file=self.keys["users"]["SERVICE_KEYS_FILE"],
        )
        self.function: Function = bootstrap(self.settings, store=self.store, clock=self.clock)

    async def serve(self) -> AsyncIterator[Platform]:
        for hook in self.function.on_start:
            await hook()
        server = RpcServer("users", self.function.services(), self.function.verifier, False)
        port = await server.start("127.0.0.1:0")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            self.users: Any = users_pb2_grpc.UsersServiceStub(channel)
            yield self
        await server.stop(0)
        for hook in self.function.on_stop:
            await hook()

    async def register(self, email: str = "ada@example.com") -> pb.User:
        user: pb.User = (await self.users.Register(pb.RegisterRequest(email=email, password=PASSWORD, name="Ada"))).user
        return user

    async def login(self, email: str = "ada@example.com", password: str = PASSWORD) -> pb.Session:
        request = pb.LoginRequest(email=email, password=password, client_address="192.0.2.1")
        session: pb.Session = (await self.users.Login(request)).session
        return session

    async def code(
        self, user: pb.User, purpose: pb.Purpose.ValueType, change_id: str = ""
    ) -> pb.IssueMailedTokenResponse:
        request = pb.IssueMailedTokenRequest(user_id=user.id, purpose=purpose, change_id=change_id)
        code: pb.IssueMailedTokenResponse = await self.users.IssueMailedToken(
            request, metadata=self.as_service("notifications")
        )
        return code

    async def token(self, email: str = "ada@example.com") -> list[tuple[str, str]]:
        return bearer((await self.login(email)).access_token)

    def as_service(self, name: str) -> list[tuple[str, str]]:
        key = PrivateKey.from_pem(name, Path(self.keys[name]["SERVICE_KEY_FILE"]).read_text())
        return bearer(ServiceTokens(key, self.settings.token_issuer, self.clock).token("users"))


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async for served in Platform(tmp_path).serve():
        yield served


async def failure(call: Awaitable[Any]) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value)


async def test_a_person_registers_logs_in_and_reads_and_changes_their_profile(platform: Platform) -> None:
    user = await platform.register("Ada@Example.com")
    assert user.id.startswith("usr_")
    assert (user.email, user.name, list(user.roles)) == ("ada@example.com", "Ada", ["customer"])
    assert user.created_at.ToDatetime().year == 2030
    session = await platform.login()
    assert (session.user_id, session.expires_in) == (user.id, 900)
    me = bearer(session.access_token)
    assert (await platform.users.GetUser(pb.GetUserRequest(user_id=user.id), metadata=me)).user == user
    renamed = (
        await platform.users.UpdateUser(
            pb.UpdateUserRequest(user_id=user.id, name="Countess", version=user.version), metadata=me
        )
    ).user
    assert (renamed.name, renamed.email, renamed.version) == ("Countess", "ada@example.com", 2)
    moved = (
        await platform.users.UpdateUser(pb.UpdateUserRequest(user_id=user.id, email="c@example.com"), metadata=me)
    ).user
    assert (moved.name, moved.email, moved.pending_email) == ("Countess", "ada@example.com", "c@example.com")
    late = pb.UpdateUserRequest(user_id=user.id, name="Late", version=1)
    stale = await failure(platform.users.UpdateUser(late, metadata=me))
    assert (stale.code, stale.reason) == (Code.ABORTED, "VERSION_MISMATCH")


async def test_an_email_change_is_confirmed_and_undone_by_mailed_codes(platform: Platform) -> None:
    user = await platform.register()
    old = await platform.token()
    platform.clock.advance(timedelta(minutes=6))
    wanted = pb.UpdateUserRequest(user_id=user.id, email="c@example.com")
    refused = await failure(platform.users.UpdateUser(wanted, metadata=old))
    assert (refused.code, refused.reason) == (Code.UNAUTHENTICATED, "REAUTHENTICATION_REQUIRED")
    wanted.current_password = PASSWORD
    await platform.users.UpdateUser(wanted, metadata=old)
    code = await platform.code(user, pb.PURPOSE_EMAIL_CHANGE)
    assert code.email == "c@example.com"
    await platform.users.ConfirmEmailChange(pb.ConfirmEmailChangeRequest(token=code.token))
    again = await platform.token("c@example.com")
    kept = await platform.users.ExportUser(pb.ExportUserRequest(user_id=user.id), metadata=again)
    assert (kept.user.email, kept.user.email_verified, kept.user.pending_email) == ("c@example.com", True, "")
    change = next(event for event in platform.store.events if isinstance(event, UserEmailChanged))
    code = await platform.code(user, pb.PURPOSE_EMAIL_UNDO, change.change_id)
    assert code.email == "ada@example.com"
    await platform.users.UndoEmailChange(pb.UndoEmailChangeRequest(token=code.token))
    gone = await failure(platform.login("c@example.com"))
    assert gone.reason == "INVALID_CREDENTIALS"


async def test_a_known_device_logs_in_during_a_lockout(platform: Platform) -> None:
    await platform.register()
    device = (await platform.login()).device_token
    for _ in range(5):
        await failure(platform.login(password="a wrong password"))
    known = pb.LoginRequest(email="ada@example.com", password=PASSWORD, client_address="192.0.2.1", device_token=device)
    assert (await platform.users.Login(known)).session.device_token
    assert (await failure(platform.login())).reason == "TOO_MANY_ATTEMPTS"


async def test_a_session_is_refreshed_and_ended(platform: Platform) -> None:
    await platform.register()
    first = await platform.login()
    second = (await platform.users.Refresh(pb.RefreshRequest(refresh_token=first.refresh_token))).session
    await platform.users.Logout(pb.LogoutRequest(refresh_token=second.refresh_token))
    over = await failure(platform.users.Refresh(pb.RefreshRequest(refresh_token=second.refresh_token)))
    assert (over.code, over.reason) == (Code.UNAUTHENTICATED, "INVALID_REFRESH_TOKEN")


async def test_a_second_registration_reveals_nothing(platform: Platform) -> None:
    first, again = await platform.register(), await platform.register()
    assert again.id.startswith("usr_")
    assert again.id != first.id
    for user in (first, again):
        user.id = ""
        user.ClearField("created_at")
        user.ClearField("updated_at")
    assert again == first


async def test_errors_contain_code_reason_fields_and_retry_time(platform: Platform) -> None:
    wrong = await failure(
        platform.users.Register(pb.RegisterRequest(email="ada@example.com", password="short", name="Ada"))
    )
    assert (wrong.code, wrong.reason) == (Code.INVALID_ARGUMENT, "WEAK_PASSWORD")
    assert wrong.violations[0].field == "password"
    await platform.register()
    for _ in range(5):
        assert (await failure(platform.login(password="wrong"))).reason == "INVALID_CREDENTIALS"
    limited = await failure(platform.login())
    assert (limited.code, limited.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS")
    assert limited.retry_after == 900


async def test_every_method_except_the_public_ones_requires_a_token(platform: Platform) -> None:
    for method in pb.DESCRIPTOR.services_by_name["UsersService"].methods:
        call: Callable[..., Awaitable[Any]] = getattr(platform.users, method.name)
        request = getattr(pb, method.input_type.name)()
        if ACCESS[method.name].anonymous:
            continue
        for metadata in ([], bearer("garbage")):
            assert (await failure(call(request, metadata=metadata))).code is Code.UNAUTHENTICATED, method.name


async def test_a_customer_is_refused_other_accounts_and_methods_for_admins_and_services(
    platform: Platform,
) -> None:
    ada, eve = await platform.register(), await platform.register("eve@example.com")
    me = await platform.token("eve@example.com")
    users, address = platform.users, pb.Address(id="adr_x", name="E", line1="1", city="B", country="DE")
    for call in (
        users.GetUser(pb.GetUserRequest(user_id=ada.id), metadata=me),
        users.UpdateUser(pb.UpdateUserRequest(user_id=ada.id, name="Eve"), metadata=me),
        users.ChangePassword(pb.ChangePasswordRequest(user_id=ada.id), metadata=me),
        users.DeleteUser(pb.DeleteUserRequest(user_id=ada.id), metadata=me),
        users.ListAddresses(pb.ListAddressesRequest(user_id=ada.id), metadata=me),
        users.AddAddress(pb.AddAddressRequest(user_id=ada.id, address=address), metadata=me),
        users.UpdateAddress(pb.UpdateAddressRequest(user_id=ada.id, address=address), metadata=me),
        users.DeleteAddress(pb.DeleteAddressRequest(user_id=ada.id, address_id="adr_x"), metadata=me),
        users.ListUsers(pb.ListUsersRequest(), metadata=me),
        users.SetRoles(pb.SetRolesRequest(user_id=eve.id, roles=["admin"]), metadata=me),
        users.RotateKeys(pb.RotateKeysRequest(), metadata=me),
        users.GetContacts(pb.GetContactsRequest(user_ids=[ada.id]), metadata=me),
        users.GetContacts(pb.GetContactsRequest(), metadata=platform.as_service("orders")),
        users.GetUser(pb.GetUserRequest(user_id=ada.id), metadata=platform.as_service("notifications")),
    ):
        assert (await failure(call)).code is Code.PERMISSION_DENIED


async def test_a_grpc_client_cannot_avoid_the_throttle_with_a_false_network_address(
    platform: Platform,
) -> None:
    async def guess(number: int) -> ServiceError:
        request = pb.LoginRequest(
            email=f"nobody-{number}@example.com", password=PASSWORD, client_address=f"198.51.100.{number}"
        )
        return await failure(platform.users.Login(request, metadata=[("x-client-address", "192.0.2.9")]))

    assert [(await guess(number)).reason for number in range(11)] == [
        *["INVALID_CREDENTIALS"] * 10,
        "TOO_MANY_ATTEMPTS",
    ]


async def test_addresses_are_added_listed_replaced_and_removed(platform: Platform) -> None:
    user = await platform.register()
    me, users = await platform.token(), platform.users
    wanted = pb.Address(name="Ada", line1="1 Engine Street", city="London", postal_code="N1 9GU", country="gb")
    home = (await users.AddAddress(pb.AddAddressRequest(user_id=user.id, address=wanted), metadata=me)).address
    assert (home.city, home.country) == ("London", "GB")
    home.city = "Bath"
    await users.UpdateAddress(pb.UpdateAddressRequest(user_id=user.id, address=home), metadata=me)
    listed = await users.ListAddresses(pb.ListAddressesRequest(user_id=user.id), metadata=me)
    assert list(listed.addresses) == [home]
    await users.DeleteAddress(pb.DeleteAddressRequest(user_id=user.id, address_id=home.id), metadata=me)
    listed = await users.ListAddresses(pb.ListAddressesRequest(user_id=user.id), metadata=me)
    assert not listed.addresses


async def test_a_new_password_replaces_the_old_one(platform: Platform) -> None:
    user = await platform.register()
    request = pb.ChangePasswordRequest(user_id=user.id, current_password=PASSWORD, new_password="another fine password")
    await platform.users.ChangePassword(request, metadata=await platform.token())
    assert (await failure(platform.login())).reason == "INVALID_CREDENTIALS"
    await platform.login(password="another fine password")


async def test_the_administrator_from_the_settings_lists_promotes_and_deletes(platform: Platform) -> None:
    ada = await platform.register()
    root, users = await platform.token(ADMIN), platform.users
    first = await users.ListUsers(pb.ListUsersRequest(limit=1), metadata=root)
    second = await users.ListUsers(pb.ListUsersRequest(limit=1, cursor=first.next_cursor), metadata=root)
    assert {first.users[0].email, second.users[0].email} == {ADMIN, ada.email}
    assert second.next_cursor == ""
    promoted = (await users.SetRoles(pb.SetRolesRequest(user_id=ada.id, roles=["admin"]), metadata=root)).user
    assert list(promoted.roles) == ["admin"]
    await users.DeleteUser(pb.DeleteUserRequest(user_id=ada.id), metadata=root)
    gone = await failure(users.GetUser(pb.GetUserRequest(user_id=ada.id), metadata=root))
    assert (gone.code, gone.reason) == (Code.NOT_FOUND, "USER_NOT_FOUND")
    assert platform.store.events[-2:] == [UserRegistered(user_id=ada.id), UserDeleted(user_id=ada.id)]


async def test_tokens_stay_valid_after_a_rotation_of_keys(platform: Platform) -> None:
    root = await platform.token(ADMIN)
    before = json.loads(((await platform.users.GetJwks(pb.GetJwksRequest())).jwks).json)["keys"]
    after = json.loads(((await platform.users.RotateKeys(pb.RotateKeysRequest(), metadata=root)).jwks).json)["keys"]
    assert {key["kid"] for key in before} < {key["kid"] for key in after}
    await platform.users.ListUsers(pb.ListUsersRequest(), metadata=root)
    await platform.users.ListUsers(pb.ListUsersRequest(), metadata=await platform.token(ADMIN))
    platform.clock.advance(timedelta(minutes=15))
    expired = await failure(platform.users.ListUsers(pb.ListUsersRequest(), metadata=root))
    assert expired.reason == "TOKEN_EXPIRED"


async def test_notifications_gets_contacts_and_a_bounce_marks_the_address(
    platform: Platform,
) -> None:
    ada = await platform.register()
    event = NotificationBounced(notification_id="ntf_" + "0" * 32, user_id=ada.id)
    bounced = platform.function.subscriptions[NotificationBounced]
    inbox = inbox_record(event.SOURCE, "1", platform.clock.now())
    await bounced(event, inbox)
    with pytest.raises(AlreadyDone):
        await bounced(event, inbox)
    request = pb.GetContactsRequest(user_ids=[ada.id, "usr_nobody"], admins=True)
    answer = await platform.users.GetContacts(request, metadata=platform.as_service("notifications"))
    assert {contact.email: contact.deliverable for contact in answer.contacts} == {
        ada.email: False,
        ADMIN: True,
    }
    # No mail contains a name that an unverified person chose.
    assert {(contact.name, contact.verified) for contact in answer.contacts} == {("", False)}


async def test_the_sweep_rotates_keys_when_due(platform: Platform) -> None:
    before = ((await platform.users.GetJwks(pb.GetJwksRequest())).jwks).json
    platform.clock.advance(timedelta(days=30))
    event = SweepDue()
    inbox = inbox_record(event.SOURCE, "1", platform.clock.now())
    await platform.function.subscriptions[SweepDue](event, inbox)
    assert ((await platform.users.GetJwks(pb.GetJwksRequest())).jwks).json != before


@pytest.mark.parametrize(
    "since", [Timestamp(nanos=-1), Timestamp(seconds=-(10**15)), Timestamp(seconds=10**15, nanos=10**9 - 1)]
)
async def test_an_invalid_time_is_an_invalid_argument(platform: Platform, since: Timestamp) -> None:
    refused = await failure(platform.users.GetJwks(pb.GetJwksRequest(revoked_since=since)))
    assert refused.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in refused.violations] == ["revoked_since"]
