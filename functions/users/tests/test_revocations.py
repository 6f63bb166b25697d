"""A changed password, e-mail address or role and a logout end what was issued before, and nothing else."""

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
from functions.users.auth.challenges import Purpose
from functions.users.auth.revocations import LegacyRevocations, Revocation
from functions.users.domain import User
from functions.users.store import MAPPINGS
from functions.users.tests.accounts import PASSWORD, Accounts, claims_of

OTHERS = 5_500


async def refusal(verifier: JwtVerifier, token: str) -> str:
    with pytest.raises(ServiceError) as refused:
        await verifier.verify(token)
    return refused.value.reason


async def store_revocation(accounts: Accounts, revocation: Revocation) -> None:
    """Store a revocation of another user."""
    await accounts.store.update(Revocation, revocation.id, lambda _: (revocation, ()))


async def test_thousands_of_logouts_displace_no_other_revocation(accounts: Accounts) -> None:
    root, ada = await accounts.register_admin(), await accounts.register()
    login = await accounts.login()
    mine = await accounts.login()
    accounts.clock.advance(timedelta(milliseconds=1))
    await accounts.set_roles(ada, "customer", by=root)
    await accounts.logout(mine)
    for number in range(OTHERS):
        await store_revocation(accounts, Revocation.of_session(f"ses_{number}", accounts.clock.now()))

    verifier = accounts.new_verifier()
    assert await refusal(verifier, login.access_token) == "TOKEN_EXPIRED"
    assert await refusal(verifier, mine.access_token) == "TOKEN_EXPIRED"
    assert (await verifier.verify((await accounts.login()).access_token)).subject == ada.id


async def test_a_verifier_gets_only_the_revocations_since_its_last_request(accounts: Accounts) -> None:
    ada = await accounts.register()
    for number in range(2_500):
        await store_revocation(accounts, Revocation.of_session(f"ses_{number}", accounts.clock.now()))
    accounts.clock.advance(timedelta(minutes=2))
    first, told = await accounts.keys.key_set(None, ""), 0
    page = first
    while True:
        told += len(page.revoked)
        if not page.next_cursor:
            break
        page = await accounts.keys.key_set(None, page.next_cursor)
    assert (told, len(first.revoked)) == (2_500, 1_000)

    await accounts.change_password(ada, PASSWORD, "another fine password")
    accounts.clock.advance(timedelta(seconds=20))
    second = await accounts.keys.key_set(first.as_of, "")
    assert [each.digest for each in second.revoked] == [subject_digest(ada.id)]
    third = await accounts.keys.key_set(
        second.as_of, ""
    )  # answers overlap by a minute, because transactions end late and clocks differ
    assert [each.digest for each in third.revoked] == [subject_digest(ada.id)]


async def test_a_revocation_is_deleted_once_its_tokens_have_expired(accounts: Accounts) -> None:
    await accounts.register()
    session = await accounts.login()
    await accounts.logout(session)
    key = subject_digest(claims_of(session.access_token)["sid"])
    accounts.clock.advance(timedelta(minutes=15))
    await accounts.store.expire(accounts.clock.now())
    assert await accounts.store.get(Revocation, key)
    accounts.clock.advance(timedelta(minutes=2))
    await accounts.store.expire(accounts.clock.now())
    assert await accounts.store.get(Revocation, key) is None


async def test_the_revocation_lists_of_earlier_releases_are_still_read(accounts: Accounts) -> None:
    ada = await accounts.register()
    token = (await accounts.login()).access_token
    void = {subject_digest(ada.id): (accounts.clock.now() + timedelta(seconds=1)).timestamp()}
    await accounts.store.update(LegacyRevocations, "outdated", lambda _: (LegacyRevocations("outdated", void), ()))
    assert await refusal(accounts.new_verifier(), token) == "TOKEN_EXPIRED"


async def change(accounts: Accounts, ada: User, root: User, what: str) -> None:
    if what == "password":
        await accounts.change_password(ada, PASSWORD, "another fine password")
    elif what == "reset":
        await accounts.request_reset(ada.email)
        await accounts.reset_password(await accounts.mailed_token(ada), "another fine password")
    elif what == "email":
        await accounts.change_email(ada, "countess@example.com")
    elif what == "undone":
        await accounts.change_email(ada, "countess@example.com")
        changed = accounts.memory.events[-1]
        assert isinstance(changed, UserEmailChanged)
        await accounts.email_changes.undo((await accounts.issue(ada, Purpose.EMAIL_UNDO, changed.change_id)).token)
    elif what == "roles":
        await accounts.set_roles(ada, "customer", by=root)
    else:
        await accounts.delete(ada)


@pytest.mark.parametrize("what", ["password", "reset", "email", "roles", "account"])
async def test_a_code_mailed_before_a_change_is_invalid_after_it(accounts: Accounts, what: str) -> None:
    root, ada = await accounts.register_admin(), await accounts.register()
    await accounts.request_verification(ada)
    verification = await accounts.mailed_token(ada, Purpose.EMAIL_VERIFICATION)
    await accounts.request_reset(ada.email)
    reset = await accounts.mailed_token(ada)

    await change(accounts, ada, root, what)

    with pytest.raises(ServiceError) as refused:
        await accounts.reset_password(reset, "the thief's own password")
    assert refused.value.reason == "MAILED_TOKEN_INVALID"
    with pytest.raises(ServiceError) as refused:
        await accounts.recovery.verify_email(verification)
    assert refused.value.reason == "MAILED_TOKEN_INVALID"
    with pytest.raises(ServiceError) as refused:
        await accounts.mailed_token(ada)  # a mail that is not sent yet gets no code either
    assert refused.value.reason == "CHALLENGE_NOT_FOUND"


@pytest.mark.parametrize("what", ["password", "reset", "email", "undone", "roles", "account"])
async def test_an_access_token_from_before_a_change_is_invalid(accounts: Accounts, what: str) -> None:
    root, ada = await accounts.register_admin(), await accounts.register()
    token = (await accounts.login()).access_token
    accounts.clock.advance(timedelta(milliseconds=1))
    await change(accounts, ada, root, what)
    assert await refusal(accounts.new_verifier(), token) == "TOKEN_EXPIRED"


@pytest.mark.parametrize("what", ["password", "reset", "undone", "account"])
async def test_a_session_from_before_a_new_password_has_ended(accounts: Accounts, what: str) -> None:
    root, ada = await accounts.register_admin(), await accounts.register()
    session = await accounts.login()
    await change(accounts, ada, root, what)
    with pytest.raises(ServiceError) as refused:
        await accounts.refresh(session.refresh_token)
    assert refused.value.reason == "INVALID_REFRESH_TOKEN"


class RecordingClient:
    """A DynamoDB client that records the keys of each transaction."""

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
async def dynamodb_accounts(moto: str) -> AsyncIterator[tuple[Accounts, RecordingClient]]:
    """A users service on DynamoDB, and the recorder of its writes."""
    connection = Connection(moto, threads=1, read_timeout=30, timeout=30)
    client = RecordingClient(make_client(connection))
    create(client, "recorded-users")
    accounts = Accounts()
    database = Database(connection, make=lambda _: client)
    accounts = Accounts(DynamoDBStore("recorded-users", MAPPINGS, accounts.clock, connection, database=database))
    yield accounts, client
    await accounts.hasher.close()
    await accounts.store.close()


async def test_on_dynamodb_a_refresh_and_a_logout_write_nothing_that_users_share(
    dynamodb_accounts: tuple[Accounts, RecordingClient],
) -> None:
    accounts, client = dynamodb_accounts
    ada = await accounts.register()
    session = await accounts.login()
    client.transactions.clear()

    session = await accounts.refresh(session.refresh_token)
    (refresh,) = client.transactions
    client.transactions.clear()
    await accounts.logout(session)
    (logout,) = client.transactions

    assert {pk.rpartition("#")[0] for pk in refresh} == {"e#session", "e#credentials"}
    assert f"e#credentials#{ada.id}" in refresh
    entities = {pk for pk in logout if pk.startswith("e#")}
    assert {pk.rpartition("#")[0] for pk in entities} == {"e#session", "e#revocation"}
    assert logout - entities == {"i#revocation#by_time#all"}  # a row of its own in the list by time
