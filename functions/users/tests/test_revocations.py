"""Who changes what proves them, or logs out: all that was issued before ends, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from events.catalog import UserEmailChanged
from functions.runtime.errors import ServiceError
from functions.runtime.key_set import subject_digest
from functions.runtime.store.dynamodb.client import Connection, Database, make_client
from functions.runtime.store.dynamodb.store import DynamoDBStore
from functions.runtime.store.dynamodb.tables import create
from functions.runtime.tokens import JwtVerifier
from functions.users import recovery, sessions
from functions.users.challenge import Purpose
from functions.users.domain import User
from functions.users.revocations import OutdatedTokens, Revocation
from functions.users.store import MAPPINGS
from functions.users.tests.world import PASSWORD, World, claims_of, me

OTHERS = 5_500


async def refusal(verifier: JwtVerifier, token: str) -> str:
    with pytest.raises(ServiceError) as refused:
        await verifier.verify(token)
    return refused.value.reason


async def end(world: World, revocation: Revocation) -> None:
    """Somebody else's."""
    await world.store.update(Revocation, revocation.id, lambda _: (revocation, ()))


async def test_thousands_who_log_out_push_nobody_out_of_the_revoked(world: World) -> None:
    root, ada = await world.register_admin(), await world.register()
    login = await world.login()
    mine = await world.login()
    world.clock.advance(timedelta(milliseconds=1))
    await world.set_roles(ada, "customer", by=root)
    await sessions.logout(mine.refresh_token, store=world.store, clock=world.clock)
    for number in range(OTHERS):
        await end(world, Revocation.of_session(f"ses_{number}", world.clock.now()))

    verifier = world.new_verifier()
    assert await refusal(verifier, login.access_token) == "TOKEN_EXPIRED"
    assert await refusal(verifier, mine.access_token) == "TOKEN_EXPIRED"
    assert (await verifier.verify((await world.login()).access_token)).subject == ada.id


async def test_a_verifier_that_knows_the_revocations_is_told_the_new_ones_only(world: World) -> None:
    ada = await world.register()
    for number in range(2_500):
        await end(world, Revocation.of_session(f"ses_{number}", world.clock.now()))
    world.clock.advance(timedelta(minutes=2))
    first, told = await world.keys.key_set(None, ""), 0
    page = first
    while True:
        told += len(page.revoked)
        if not page.next_cursor:
            break
        page = await world.keys.key_set(None, page.next_cursor)
    assert (told, len(first.revoked)) == (2_500, 1_000)

    await world.change_password(ada, PASSWORD, "another fine password")
    world.clock.advance(timedelta(seconds=20))
    second = await world.keys.key_set(first.as_of, "")
    assert [each.digest for each in second.revoked] == [subject_digest(ada.id)]
    third = await world.keys.key_set(
        second.as_of, ""
    )  # overlaps by a minute: transactions end late, clocks differ
    assert [each.digest for each in third.revoked] == [subject_digest(ada.id)]


async def test_a_revocation_is_kept_until_its_tokens_have_expired_and_no_longer(world: World) -> None:
    await world.register()
    session = await world.login()
    await sessions.logout(session.refresh_token, store=world.store, clock=world.clock)
    key = subject_digest(claims_of(session.access_token)["sid"])
    world.clock.advance(timedelta(minutes=15))
    await world.store.expire(world.clock.now())
    assert await world.store.get(Revocation, key)
    world.clock.advance(timedelta(minutes=2))
    await world.store.expire(world.clock.now())
    assert await world.store.get(Revocation, key) is None


async def test_the_lists_of_earlier_releases_are_still_heeded(world: World) -> None:
    ada = await world.register()
    token = (await world.login()).access_token
    void = {subject_digest(ada.id): (world.clock.now() + timedelta(seconds=1)).timestamp()}
    await world.store.update(OutdatedTokens, "outdated", lambda _: (OutdatedTokens("outdated", void), ()))
    assert await refusal(world.new_verifier(), token) == "TOKEN_EXPIRED"


async def change(world: World, ada: User, root: User, what: str) -> None:
    if what == "password":
        await world.change_password(ada, PASSWORD, "another fine password")
    elif what == "reset":
        await world.forget_password(ada.email)
        await world.reset_password(await world.mailed(ada), "another fine password")
    elif what == "email":
        await world.move(ada, "countess@example.com")
    elif what == "undone":
        await world.move(ada, "countess@example.com")
        changed = world.memory.events[-1]
        assert isinstance(changed, UserEmailChanged)
        await world.undo_email((await world.issue(ada, Purpose.EMAIL_UNDO, changed.change_id)).token)
    elif what == "roles":
        await world.set_roles(ada, "customer", by=root)
    else:
        await world.delete(ada)


@pytest.mark.parametrize("what", ["password", "reset", "email", "roles", "account"])
async def test_what_was_mailed_before_a_change_proves_nothing_after_it(world: World, what: str) -> None:
    root, ada = await world.register_admin(), await world.register()
    await recovery.request_verification(ada.id, me(ada), store=world.store, clock=world.clock)
    verification = await world.mailed(ada, Purpose.EMAIL_VERIFICATION)
    await world.forget_password(ada.email)
    reset = await world.mailed(ada)

    await change(world, ada, root, what)

    with pytest.raises(ServiceError) as refused:
        await world.reset_password(reset, "the thief's own password")
    assert refused.value.reason == "MAILED_TOKEN_INVALID"
    with pytest.raises(ServiceError) as refused:
        await recovery.verify_email(verification, store=world.store, clock=world.clock)
    assert refused.value.reason == "MAILED_TOKEN_INVALID"
    with pytest.raises(ServiceError) as refused:
        await world.mailed(ada)  # nor does a mail that is still on its way get a code
    assert refused.value.reason == "CHALLENGE_NOT_FOUND"


@pytest.mark.parametrize("what", ["password", "reset", "email", "undone", "roles", "account"])
async def test_an_access_token_from_before_a_change_is_void(world: World, what: str) -> None:
    root, ada = await world.register_admin(), await world.register()
    token = (await world.login()).access_token
    world.clock.advance(timedelta(milliseconds=1))
    await change(world, ada, root, what)
    assert await refusal(world.new_verifier(), token) == "TOKEN_EXPIRED"


@pytest.mark.parametrize("what", ["password", "reset", "undone", "account"])
async def test_a_session_from_before_a_new_password_is_over(world: World, what: str) -> None:
    root, ada = await world.register_admin(), await world.register()
    session = await world.login()
    await change(world, ada, root, what)
    with pytest.raises(ServiceError) as refused:
        await world.refresh(session.refresh_token)
    assert refused.value.reason == "INVALID_REFRESH_TOKEN"


class Spy:
    """A DynamoDB client that notes the keys of each transaction."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.transactions: list[set[str]] = []

    def transact_write_items(self, **call: Any) -> Any:
        actions = [next(iter(action.values())) for action in call["TransactItems"]]
        self.transactions.append({action.get("Key", action.get("Item"))["pk"]["S"] for action in actions})
        return self._client.transact_write_items(**call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.fixture
async def spied(moto: str) -> AsyncIterator[tuple[World, Spy]]:
    """A users service on DynamoDB, and what it writes."""
    connection = Connection(moto, threads=1, read_timeout=30, patience=30)
    spy = Spy(make_client(connection))
    create(spy, "spied-users")
    world = World()
    database = Database(connection, make=lambda _: spy)
    world = World(DynamoDBStore("spied-users", MAPPINGS, world.clock, connection, database=database))
    yield world, spy
    await world.hasher.close()
    await world.store.close()


async def test_on_dynamodb_a_refresh_and_a_logout_touch_nothing_that_people_share(
    spied: tuple[World, Spy],
) -> None:
    world, spy = spied
    ada = await world.register()
    session = await world.login()
    spy.transactions.clear()

    session = await world.refresh(session.refresh_token)
    (refresh,) = spy.transactions
    spy.transactions.clear()
    await sessions.logout(session.refresh_token, store=world.store, clock=world.clock)
    (logout,) = spy.transactions

    assert {pk.rpartition("#")[0] for pk in refresh} == {"e#session", "e#credentials"}
    assert f"e#credentials#{ada.id}" in refresh
    entities = {pk for pk in logout if pk.startswith("e#")}
    assert {pk.rpartition("#")[0] for pk in entities} == {"e#session", "e#revocation"}
    assert logout - entities == {"i#revocation#by_time#all"}  # a row of its own in the list by time
