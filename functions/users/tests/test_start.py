"""Start of the process: the first administrator, invalid settings, imports."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from events.catalog import subscriptions_of
from functions.runtime.clock import ManualClock
from functions.runtime.settings import SettingsError, load
from functions.runtime.store.memory import MemoryStore
from functions.runtime.tests.support import FakeVerifier, recorded
from functions.users.bootstrap import bootstrap
from functions.users.domain import AdminRoster, Credentials, User
from functions.users.settings import Settings
from functions.users.store import MAPPINGS, newest_users
from functions.users.tests.accounts import PASSWORD, Accounts, identity_of


async def start(store: MemoryStore, *, email: str = "", password: str = "") -> None:
    cheap = Settings(argon2_time_cost=1, argon2_memory_kib=8, admin_email=email, admin_password=password)
    function = bootstrap(cheap, store=store, clock=ManualClock(), verifier=FakeVerifier())
    for hook in [*function.on_start, *function.on_stop]:
        await hook()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(MAPPINGS, ManualClock(), lost_races=1)


async def registered(store: MemoryStore) -> list[User]:
    return (await newest_users(store, 100, None)).items


async def test_only_the_first_start_creates_the_administrator(store: MemoryStore) -> None:
    await start(store, email="Root@example.com", password=PASSWORD)
    made = await registered(store)
    assert [(user.email, user.roles) for user in made] == [("root@example.com", ["admin", "customer"])]
    credentials = await store.get(Credentials, made[0].id)
    await start(store, email="root@example.com", password="quite another password")
    assert await registered(store) == made
    assert await store.get(Credentials, made[0].id) == credentials
    assert len(await recorded(store)) == 1


async def test_a_deleted_first_administrator_is_not_created_again(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    await start(store, email="root@example.com", password=PASSWORD)
    assert "ADMIN_PASSWORD" not in caplog.text
    accounts = Accounts(store)
    (first,) = await registered(store)
    other = await accounts.register_admin("other@example.com")
    await accounts.delete(first, by=identity_of(other))
    await start(store, email="root@example.com", password=PASSWORD)
    await start(store, email="somebody.else@example.com", password=PASSWORD)
    assert await registered(store) == [other]
    assert "ADMIN_PASSWORD is not needed any more" in caplog.text
    assert PASSWORD not in caplog.text
    await accounts.hasher.close()


async def test_one_of_ten_simultaneous_first_starts_creates_the_administrator(store: MemoryStore) -> None:
    emails = [f"root{number}@example.com" for number in range(10)]
    await asyncio.gather(*(start(store, email=email, password=PASSWORD) for email in emails))
    assert len(await registered(store)) == 1


async def test_an_existing_account_does_not_become_an_administrator(store: MemoryStore) -> None:
    accounts = Accounts(store)
    await accounts.register("root@example.com")
    await start(store, email="root@example.com", password="quite another password")
    assert [user.roles for user in await registered(store)] == [["customer"]]
    await accounts.login("root@example.com")
    await accounts.hasher.close()


async def test_without_the_settings_there_is_no_administrator(store: MemoryStore) -> None:
    await start(store)
    assert await registered(store) == []
    assert await store.get(AdminRoster, "admins") is None


@pytest.mark.parametrize(
    ("email", "password", "named"),
    [
        ("root@example.com", "", "ADMIN_PASSWORD"),
        ("", PASSWORD, "ADMIN_EMAIL"),
        ("root", PASSWORD, "ADMIN_EMAIL"),
        ("root@example.com", "admin12345", "ADMIN_PASSWORD"),
    ],
)
async def test_invalid_settings_of_the_administrator_are_named_without_their_values(
    store: MemoryStore, email: str, password: str, named: str
) -> None:
    with pytest.raises(SettingsError, match=named) as raised:
        await start(store, email=email, password=password)
    assert "admin12345" not in str(raised.value)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize("variable", ["ARGON2_TIME_COST", "ARGON2_MEMORY_KIB", "HASH_CONCURRENCY"])
def test_hashing_cannot_be_made_weak_from_the_environment(variable: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        load(Settings, {variable: "0"})


def test_every_event_for_users_has_a_handler(store: MemoryStore) -> None:
    function = bootstrap(Settings(), store=store, clock=ManualClock(), verifier=FakeVerifier())
    assert {payload.TYPE for payload in function.subscriptions} == subscriptions_of("users")


def test_importing_the_service_does_not_import_heavy_libraries() -> None:
    code = "import functions.users.bootstrap, sys; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "email_validator",
        "argon2",
        "jwt",
        "cryptography",
        "pydantic",
        "boto3",
        "aiohttp",
        "opentelemetry",
    }
    assert not heavy & set(answer.stdout.split())
