"""What is particular to PostgreSQL: several processes, lost connections, fail-over, rotation, migrations, rights."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest

from events.outbox import OutboxRow
from functions.runtime.clock import ManualClock, SystemClock
from functions.runtime.errors import Code, ServiceError, not_found
from functions.runtime.settings import RuntimeSettings, SettingsError, load
from functions.runtime.store.port import Changes, Ref, Term
from functions.runtime.store.postgres.client import Connection, Database, Unsure, postgres_url
from functions.runtime.store.postgres.local import PostgresServer
from functions.runtime.store.postgres.migrate import Settings, migrate, migrated, scram
from functions.runtime.store.postgres.schema import SchemaError, check, role_of, schema_of
from functions.runtime.store.postgres.store import PostgresStore
from functions.runtime.tests.store_fixtures import empty, on_postgres
from functions.runtime.tests.store_kinds import (
    MAPPINGS,
    Counter,
    Document,
    adding,
    happened,
    inbox_record,
    put,
)
from functions.runtime.tests.support import recorded

Opener = Callable[..., PostgresStore]
PATIENCE = 60.0


class FaultyDatabase(Database):
    """Counts statements. Loses the answers of the next commits, or their requests, and then runs `after_loss`."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.statements: list[str] = []
        self.lost_answers = 0
        self.lost_requests = 0
        self.after_loss: Callable[[], Any] | None = None

    async def once(self, deadline: float, sql: str, *values: Any) -> Sequence[Any]:
        self.statements.append(sql)
        if "commit_1" not in sql or not (self.lost_answers or self.lost_requests):
            return await super().once(deadline, sql, *values)
        if self.lost_answers:
            self.lost_answers -= 1
            await super().once(deadline, sql, *values)
        else:
            self.lost_requests -= 1
        if self.after_loss:
            await self.after_loss()
        raise Unsure("lost")


@pytest.fixture
async def opened(postgres: PostgresServer) -> AsyncIterator[Opener]:
    """Opens stores of one schema, as several processes have."""
    await empty(postgres)
    stores: list[PostgresStore] = []

    def open_one(**parameters: Any) -> PostgresStore:
        stores.append(on_postgres(postgres, SystemClock(), **parameters))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()


@pytest.fixture
def database(postgres: PostgresServer) -> FaultyDatabase:
    """A database whose answers a test can lose."""
    url = postgres_url(postgres.urls.domains).url
    return FaultyDatabase(Connection(url, "shop_test", lambda: None, timeout=PATIENCE))


@asynccontextmanager
async def administrator(server: PostgresServer) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(server.urls.admin)
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_transaction_costs_two_statements_and_a_read_one(opened: Opener, database: FaultyDatabase) -> None:
    store = opened(database=database)
    await store.ping()
    database.statements.clear()
    await store.update(Counter, "c", adding(events=[happened()]), idempotency=inbox_record("m"))
    assert len(database.statements) == 2
    await store.get(Counter, "c")
    await store.page(Document, "owner", "me", limit=5)
    assert len(database.statements) == 4


async def test_a_transaction_on_what_is_likely_new_costs_one_statement_and_reads_what_exists(
    opened: Opener, database: FaultyDatabase
) -> None:
    store = opened(database=database)
    await store.ping()
    database.statements.clear()

    async def add() -> int:
        def change(found: Sequence[Any]) -> Changes[int]:
            counter = found[0] or Counter("c")
            counter.left += 1
            return Changes(counter.left, [counter])

        return await store.transact([Ref(Counter, "c")], change, likely_new=True)

    assert await add() == 1
    assert len(database.statements) == 1
    assert await asyncio.gather(*(add() for _ in range(5))) == [2, 3, 4, 5, 6]
    assert (await store.get(Counter, "c")) == Counter("c", 6, version=6)


async def test_an_error_on_what_is_likely_new_is_raised_only_if_it_is_absent(opened: Opener) -> None:
    store = opened()
    await store.update(Counter, "c", adding())

    def change(found: Sequence[Any]) -> Changes[int]:
        if found[0] is None:
            raise not_found("Counter", "COUNTER_NOT_FOUND")
        return Changes(found[0].left)

    assert await store.transact([Ref(Counter, "c")], change, likely_new=True) == 1
    with pytest.raises(ServiceError) as raised:
        await store.transact([Ref(Counter, "d")], change, likely_new=True)
    assert raised.value.reason == "COUNTER_NOT_FOUND"


async def test_processes_that_race_for_an_entity_lose_no_change(opened: Opener) -> None:
    stores = [opened(), opened(), opened()]
    await asyncio.gather(*(store.update(Counter, "c", adding()) for store in stores for _ in range(15)))
    counter = await stores[0].get(Counter, "c")
    assert counter == Counter("c", 45, version=45)


async def test_an_inbox_record_lets_one_of_several_processes_through(opened: Opener) -> None:
    stores = [opened(), opened(), opened()]
    answers = await asyncio.gather(
        *(store.update(Counter, "c", adding(), idempotency=inbox_record("m")) for store in stores),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Counter) for answer in answers) == 1
    assert await stores[0].get(Counter, "c") == Counter("c", 1, version=1)


@pytest.mark.parametrize("exist", [True, False])
async def test_two_that_each_read_what_the_other_writes_do_not_both_commit_blindly(opened: Opener, exist: bool) -> None:
    for _ in range(8):
        stores = [opened(), opened()]
        for key in ("a", "b"):
            await stores[0].transact([Ref(Counter, key)], _removing)
            if exist:
                await stores[0].update(Counter, key, adding(0, key=key))

        def claim(key: str, found: Sequence[Any]) -> Changes[bool]:
            if any(counter and counter.left for counter in found):
                return Changes(False)
            return Changes(True, put=[Counter(key, 1, version=next((c.version for c in found if c), 0))])

        claims = await asyncio.gather(
            *(
                store.transact([Ref(Counter, "a"), Ref(Counter, "b")], partial(claim, key))
                for store, key in zip(stores, ("a", "b"), strict=True)
            )
        )
        assert sorted(claims) == [False, True]


def _removing(found: Sequence[Any]) -> Changes[None]:
    return Changes(None, delete=[counter for counter in found if counter])


async def test_a_commit_whose_answer_is_lost_takes_effect_once(opened: Opener, database: FaultyDatabase) -> None:
    store = opened(database=database)
    heard: list[OutboxRow] = []
    store.on_commit(heard.extend)
    for events in ([], [happened()]):
        database.lost_answers = 1
        await store.update(Counter, "c", adding(events=events))
    database.lost_answers = 1
    await store.update(Counter, "c", adding(), idempotency=inbox_record("m"))
    assert await store.get(Counter, "c") == Counter("c", 3, version=3)
    assert len(heard) == len(await recorded(store)) == 1


async def test_a_commit_whose_request_is_lost_is_sent_again(opened: Opener, database: FaultyDatabase) -> None:
    store = opened(database=database)
    database.lost_requests = 2
    assert (await store.update(Counter, "c", adding(events=[happened()]))).left == 1
    assert await store.get(Counter, "c") == Counter("c", 1, version=1)
    assert len(await recorded(store)) == 1


@pytest.mark.parametrize("events", [0, 1])
async def test_a_lost_answer_is_not_repeated_when_others_have_written_since(
    opened: Opener, database: FaultyDatabase, events: int
) -> None:
    store, other = opened(database=database), opened()
    await other.update(Counter, "c", adding())

    async def interfere() -> None:
        await other.update(Counter, "c", adding(10))

    database.lost_answers, database.after_loss = 1, interfere
    update = store.update(Counter, "c", adding(events=[happened()] * events))
    if events:  # the outbox shows that the commit took effect
        await update
    else:
        with pytest.raises(ServiceError) as caught:
            await update
        assert caught.value.code is Code.UNAVAILABLE
    counter = await other.get(Counter, "c")
    assert counter
    assert counter.left == 12


async def test_the_store_goes_on_after_its_connections_were_ended(opened: Opener, postgres: PostgresServer) -> None:
    store = opened()
    await asyncio.gather(*(store.update(Counter, str(n), adding(key=str(n))) for n in range(6)))
    async with administrator(postgres) as admin:
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop_test'")
    assert (await store.update(Counter, "0", adding(key="0"))).left == 2
    assert await store.get(Counter, "1") == Counter("1", 1, version=1)


async def test_work_waits_for_a_server_that_restarts_after_a_crash(opened: Opener, postgres: PostgresServer) -> None:
    store = opened(timeout=PATIENCE)
    await store.update(Counter, "c", adding())
    await asyncio.to_thread(postgres.stop, signal.SIGQUIT)
    working = [asyncio.create_task(store.update(Counter, "c", adding())) for _ in range(3)]
    reading = asyncio.create_task(store.get(Counter, "c"))
    await asyncio.sleep(0.3)
    assert not reading.done()
    await asyncio.to_thread(postgres.start)
    await asyncio.gather(*working, reading)
    assert await store.get(Counter, "c") == Counter("c", 4, version=4)


async def test_a_server_that_is_gone_is_unavailable_within_the_deadline(
    opened: Opener, postgres: PostgresServer
) -> None:
    store = opened(timeout=0.5)
    await store.ping()
    await asyncio.to_thread(postgres.stop)
    try:
        async with asyncio.timeout(20):
            for work in (store.ping(), store.get(Counter, "c"), store.update(Counter, "c", adding())):
                with pytest.raises(ServiceError) as caught:
                    await work
                assert caught.value.code is Code.UNAVAILABLE
    finally:
        await asyncio.to_thread(postgres.start)


async def test_connections_to_a_server_that_became_a_replica_are_replaced(
    opened: Opener, postgres: PostgresServer
) -> None:
    store = opened(timeout=8, first=PATIENCE)
    async with administrator(postgres) as admin:
        await admin.execute("ALTER ROLE shop_test SET default_transaction_read_only = on")
        try:
            with pytest.raises(ServiceError) as caught:
                await store.ping()
            assert caught.value.code is Code.UNAVAILABLE
            with pytest.raises(ServiceError):
                await store.update(Counter, "c", adding())
        finally:
            await admin.execute("ALTER ROLE shop_test RESET default_transaction_read_only")
    assert (await store.update(Counter, "c", adding())).left == 1  # without a restart


async def test_a_lock_that_is_held_too_long_makes_one_entity_unavailable(
    opened: Opener, postgres: PostgresServer
) -> None:
    store = opened(timeout=1.0, first=PATIENCE)
    await store.update(Counter, "c", adding())
    async with administrator(postgres) as admin, admin.transaction():
        await admin.execute("SELECT 1 FROM test.entity WHERE id = 'c' FOR UPDATE")
        with pytest.raises(ServiceError) as caught:
            await store.update(Counter, "c", adding())
        assert caught.value.code is Code.UNAVAILABLE
        await store.update(Counter, "d", adding(key="d"))
    assert (await store.update(Counter, "c", adding())).left in (2, 3)


async def test_a_key_that_no_index_takes_is_refused(opened: Opener) -> None:
    import random

    store = opened()
    endless = "".join(chr(random.randint(0x4E00, 0x9FFF)) for _ in range(5000))
    with pytest.raises(ServiceError) as caught:
        await store.update(Counter, endless, adding(key=endless))
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "ID_TOO_LONG")


async def test_updates_need_no_new_index_entries(opened: Opener, postgres: PostgresServer) -> None:
    store = opened()
    await put(store, Document("d", owner="me", text="words"))
    async with administrator(postgres) as admin:
        before = await admin.fetchval("SELECT pg_stat_get_tuples_hot_updated('test.entity'::regclass)")
        for number in range(20):
            await put(store, Document("d", owner="me", text="words", tags={"n": [str(number)]}))
        await store.close()  # the server publishes a connection's counts when it ends
        after = before
        for _ in range(100):
            after = await admin.fetchval("SELECT pg_stat_get_tuples_hot_updated('test.entity'::regclass)")
            if after - before >= 15:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{after - before} of 20 updates were HOT")


async def test_sweeps_of_several_processes_remove_each_thing_once(opened: Opener) -> None:
    stores = [opened(), opened()]
    clock = SystemClock()
    ends = clock.now() + timedelta(minutes=1)
    await asyncio.gather(*(put(stores[0], Document(f"d{n}", owner="me", ends=ends)) for n in range(40)))
    removed = await asyncio.gather(*(store.expire(ends) for store in stores))
    assert sum(removed) == 40
    assert (await stores[0].page(Document, "owner", "me", limit=5)).items == []


async def test_a_rotated_password_needs_no_restart_and_is_in_no_log(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await empty(postgres)
    rules = postgres.folder / "data" / "pg_hba.conf"
    trusting = rules.read_text()
    passwords = ["first secret", "second secret"]
    current = [passwords[0]]
    url = postgres_url(postgres.urls.domains).url
    connection = Connection(url, "shop_test", lambda: current[0], timeout=4, first=PATIENCE)
    store = PostgresStore("test", MAPPINGS, ManualClock(), connection)
    async with administrator(postgres) as admin:
        try:
            rules.write_text(f"local all shop_test scram-sha-256\n{trusting}")
            await admin.execute(f"ALTER ROLE shop_test PASSWORD '{scram(passwords[0])}'")
            await admin.execute("SELECT pg_reload_conf()")
            await _until_refused(url)
            await store.update(Counter, "c", adding())
            await admin.execute(f"ALTER ROLE shop_test PASSWORD '{scram(passwords[1])}'")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop_test'")
            with pytest.raises(ServiceError) as caught:
                await store.update(Counter, "c", adding())
            current[0] = passwords[1]
            assert (await store.update(Counter, "c", adding())).left == 2
        finally:
            rules.write_text(trusting)
            await admin.execute("SELECT pg_reload_conf()")
            await store.close()
    said = caplog.text + repr(caught.value) + repr(caught.value.__cause__)
    assert not [password for password in passwords if password in said]


async def _until_refused(url: str) -> None:
    for _ in range(100):
        try:
            await (await asyncpg.connect(url, user="shop_test", password="wrong")).close()
        except asyncpg.InvalidPasswordError:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the server takes any password")


async def test_a_role_may_use_its_own_schema_and_change_no_table(postgres: PostgresServer) -> None:
    await asyncio.to_thread(migrated, postgres, ["neighbour"])
    connection = await asyncpg.connect(postgres_url(postgres.urls.domains).url, user="shop_test")
    try:
        await connection.fetch("SELECT * FROM test.entity")
        for statement in (
            "SELECT * FROM neighbour.entity",
            "DROP TABLE test.entity",
            "TRUNCATE test.entity",
            "ALTER TABLE test.entity ADD COLUMN more text",
            "CREATE TABLE test.mine (id text)",
            "UPDATE test.store SET epoch = 1",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_store_is_ready_once_its_schema_is_there(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    connection = Connection(postgres_url(postgres.urls.admin).url, "postgres", lambda: None, timeout=PATIENCE)
    store = PostgresStore("later", MAPPINGS, ManualClock(), connection)
    with pytest.raises(ServiceError) as caught:
        await store.ping()
    assert caught.value.code is Code.UNAVAILABLE
    assert "run the migration" in caplog.text
    await asyncio.to_thread(migrated, postgres, ["later"])
    await store.ping()
    await store.close()


async def test_a_schema_of_a_later_release_is_used_as_long_as_it_serves_this_one(
    opened: Opener, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with administrator(postgres) as admin:
        await admin.execute("UPDATE test.store SET version = 3, serves = 1")
        await opened().ping()
        await admin.execute("UPDATE test.store SET version = 3, serves = 3")
        with pytest.raises(ServiceError) as caught:
            await opened().ping()
    assert caught.value.code is Code.UNAVAILABLE
    assert "use the later release" in caplog.text
    with pytest.raises(SchemaError, match="make migrate"):
        check("test", 0, 0)


async def test_migrations_may_run_at_once_and_again(postgres: PostgresServer) -> None:
    settings = Settings(store_url=postgres.urls.domains, store_admin_url=postgres.urls.admin)
    lines: list[str] = []
    for _ in range(2):
        await asyncio.gather(*(migrate(settings, ["twice", "twice-ledger"], lines.append) for _ in range(2)))
    assert sorted(set(lines)) == [
        "twice: schema 0 -> 2",
        "twice: schema 2",
        "twice_ledger: schema 0 -> 2",
        "twice_ledger: schema 2",
    ]
    assert lines.count("twice: schema 0 -> 2") == 1
    async with administrator(postgres) as admin:
        await admin.execute("UPDATE twice.store SET version = 9")
    with pytest.raises(SettingsError, match="version 9"):
        await migrate(settings, ["twice"], lines.append)


async def test_entities_from_before_a_migration_are_found_after_it(postgres: PostgresServer) -> None:
    await asyncio.to_thread(migrated, postgres, ["old"])
    connection = Connection(postgres_url(postgres.urls.admin).url, "postgres", lambda: None, timeout=PATIENCE)
    store = PostgresStore("old", MAPPINGS, ManualClock(), connection)
    await put(store, *(Document(f"d{n:03}", rank=f"{n:03}", text="red shoe" if n % 9 else "red") for n in range(30)))
    async with administrator(postgres) as admin:
        await admin.execute(
            "DROP TABLE old.searched; DROP FUNCTION old.write_searched CASCADE;"
            "UPDATE old.store SET version = 1; UPDATE old.migration SET version_num = '0001'"
        )
    await asyncio.to_thread(migrated, postgres, ["old"])
    found = await store.search(Document, [Term("words", ["shoe"]), Term("words", ["red"])], limit=99)
    await store.close()
    assert [document.id for document in found.items] == [f"d{n:03}" for n in range(29, -1, -1) if n % 9]


def test_the_url_says_where_and_as_whom() -> None:
    address = postgres_url("postgresql://me:a%40b@one:1,two:2/shop?sslmode=require&pool_size=2")
    assert address == ("postgresql://one:1,two:2/shop?sslmode=require", "me", "a@b", 2)
    assert postgres_url("postgresql:///shop?host=/run").user is None
    assert (role_of("payments-ledger"), schema_of("payments-ledger")) == ("shop_payments", "payments_ledger")


@pytest.mark.parametrize(
    "url",
    [
        "postgres://host/shop",
        "postgresql://host",
        "postgresql://host/a/b",
        "postgresql://host/shop?pool_size=0",
        "postgresql://host/shop?pool_size=x",
        "postgresql://host/shop?password=visible",
        "postgresql://host/shop?sslmode=",
    ],
)
def test_what_is_no_such_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="STORE_URL") as caught:
        postgres_url(url)
    assert "visible" not in str(caught.value)


def test_a_password_in_the_url_is_refused_in_production() -> None:
    from functions.runtime.factories import open_store

    url = "postgresql://me:visible@host/shop"
    settings = load(RuntimeSettings, {"SHOP_ENV": "production", "STORE_URL": url})
    with pytest.raises(SettingsError, match="STORE_PASSWORD_FILE") as caught:
        open_store(settings, "orders", MAPPINGS, ManualClock())
    assert "visible" not in str(caught.value)
