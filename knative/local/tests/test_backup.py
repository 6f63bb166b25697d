from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import asyncpg
import pytest

from functions.runtime.store.port import NotAvailable
from functions.runtime.store.postgres.local import PostgresServer, Urls
from knative.local import postgres
from knative.local.backup import BackupFailed, backup, main, restore
from knative.local.data import Data, DataInUse


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A platform's folder with two stores, a broker and a secret."""
    folder = tmp_path / "data"
    folder.mkdir()
    Data(folder).prepare(["orders"])
    Data(folder).mark_first_start_done()
    for name in ("store/orders.db", "store/products.db", "broker/broker.db"):
        with closing(sqlite3.connect(folder / name)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE t (n INTEGER)")
            db.execute("INSERT INTO t VALUES (0)")
            db.commit()
    return folder


def count(folder: Path, name: str) -> int:
    with closing(sqlite3.connect(folder / "store" / name)) as db:
        return int(db.execute("SELECT n FROM t").fetchone()[0])


@pytest.fixture
def writing(data: Path) -> Iterator[None]:
    """Counts up in orders, then in products, for ever: they differ by one at most, and orders is never behind."""
    stop = Event()

    def write() -> None:
        paths = [data / "store" / name for name in ("orders.db", "products.db")]
        orders, products = (sqlite3.connect(path, isolation_level=None, timeout=10) for path in paths)
        while not stop.is_set():
            for db in (orders, products):
                db.execute("UPDATE t SET n = n + 1")
        orders.close()
        products.close()

    thread = Thread(target=write)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("writing")
def test_a_backup_is_of_one_moment_of_all_files(data: Path, tmp_path: Path) -> None:
    seen = set()
    for number in range(10):
        to = tmp_path / f"backup-{number}"
        backup(data, to)
        ahead = count(to, "orders.db") - count(to, "products.db")
        assert ahead in {0, 1}
        seen.add(count(to, "orders.db"))
    assert len(seen) > 1, "it was written all the while"


def test_what_was_backed_up_comes_back_and_what_it_replaces_is_kept(data: Path, tmp_path: Path) -> None:
    backup(data, tmp_path / "backup")
    key = (data / "secrets" / "service-key-orders" / "service.pem").read_bytes()
    with closing(sqlite3.connect(data / "store" / "orders.db")) as db:
        db.execute("UPDATE t SET n = 7")
        db.commit()
    (data / "secrets" / "service-key-orders" / "service.pem").write_bytes(b"another")

    replaced = restore(data, tmp_path / "backup")

    assert replaced is not None
    assert (count(data, "orders.db"), count(replaced, "orders.db")) == (0, 7)
    assert (data / "secrets" / "service-key-orders" / "service.pem").read_bytes() == key
    assert not Data(data).is_first_start
    assert stat.S_IMODE((data / "store" / "orders.db").stat().st_mode) == 0o600


def test_the_state_on_postgresql_comes_back_in_a_new_epoch(data: Path, tmp_path: Path) -> None:
    try:
        server = PostgresServer(data / "postgres").__enter__()
    except NotAvailable as missing:
        pytest.skip(str(missing))
    try:
        postgres.prepare(server.urls, lambda _: None)
        epoch = asyncio.run(_changed(server.urls, "kept"))
        backup(data, tmp_path / "backup")
        asyncio.run(_changed(server.urls, "lost"))
    finally:
        server.__exit__()
    backup(data, tmp_path / "of a stopped one")

    replaced = restore(data, tmp_path / "backup")

    assert replaced
    assert (replaced / "postgres").exists()
    with postgres.reached(data / "postgres", "") as urls:
        assert asyncio.run(_read(urls)) == ["kept"]
        assert asyncio.run(_changed(urls, "later")) > epoch
    restore(tmp_path / "elsewhere", tmp_path / "of a stopped one")
    with postgres.reached(tmp_path / "elsewhere" / "postgres", "") as urls:
        assert asyncio.run(_read(urls)) == ["kept", "lost"]
    (tmp_path / "backup" / "postgres.dump").write_bytes(b"PGDMP")
    with pytest.raises(NotAvailable, match="damaged"):
        restore(tmp_path / "a third", tmp_path / "backup")


async def _changed(urls: Urls, key: str) -> int:
    connection = await asyncpg.connect(urls.admin)
    await connection.execute("INSERT INTO orders.guard VALUES ($1, '', NULL, 0)", key)
    epoch: int = await connection.fetchval("SELECT epoch FROM orders.store")
    await connection.close()
    return epoch


async def _read(urls: Urls) -> list[str]:
    """Read as the domain's own role does."""
    connection = await asyncpg.connect(urls.domains, user="shop_orders")
    found = [row["key"] for row in await connection.fetch("SELECT key FROM orders.guard ORDER BY key")]
    await connection.close()
    return found


def test_an_empty_folder_takes_a_backup(data: Path, tmp_path: Path) -> None:
    backup(data, tmp_path / "backup")

    assert restore(tmp_path / "elsewhere", tmp_path / "backup") is None

    assert count(tmp_path / "elsewhere", "orders.db") == 0


def test_nothing_is_restored_under_a_platform_that_runs(data: Path, tmp_path: Path) -> None:
    backup(data, tmp_path / "backup")
    running = Data(data)
    running.hold()

    with pytest.raises(DataInUse, match="make up ARGS=stop"):
        restore(data, tmp_path / "backup")


@pytest.mark.parametrize("harm", ["no manifest", "a file is missing", "a file is damaged"])
def test_what_is_no_whole_backup_is_not_restored(data: Path, tmp_path: Path, harm: str) -> None:
    backup(data, tmp_path / "backup")
    orders = tmp_path / "backup" / "store" / "orders.db"
    if harm == "no manifest":
        (tmp_path / "backup" / "backup.json").unlink()
    elif harm == "a file is missing":
        orders.unlink()
    else:
        orders.write_bytes(orders.read_bytes()[:4096])

    assert main(["restore", str(tmp_path / "backup"), "--data", str(data)]) == 1

    assert count(data, "orders.db") == 0
    assert not list(data.glob("replaced-*"))


def test_a_backup_never_replaces_another(data: Path, tmp_path: Path) -> None:
    backup(data, tmp_path / "backup")

    with pytest.raises(BackupFailed, match="already"):
        backup(data, tmp_path / "backup")


def test_there_is_nothing_to_back_up_where_nothing_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", str(tmp_path / "backup"), "--data", str(tmp_path)]) == 1
    assert "no state" in capsys.readouterr().err
