"""What the drill does in the pods of a cluster, with a real server; and what it applies before the data is there."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from functions.runtime.store.port import NotAvailable
from functions.runtime.store.postgres.local import PostgresServer, binary
from knative.local import postgres
from tests.drill.sites import ClusterSite, is_needed_first, rendered

_ROW = "INSERT INTO orders.outbox VALUES ('{0}', 0, 'type', 'source', 'subject', '', '', '', '')"


class Pods(ClusterSite):
    """Runs on this machine what would run in the pods."""

    def __init__(self, folder: Path, data: Path, server: PostgresServer, database: str) -> None:
        super().__init__(folder, Path())
        self._replaced = {"/data/": f"{data}/", "127.0.0.1": str(server.sockets)}
        self._environ = {
            "PATH": f"{Path(binary('psql')).parent}:{os.environ['PATH']}",
            "POSTGRES_USER": "postgres",
            "POSTGRES_PASSWORD": "any",
            "POSTGRES_DB": database,
        }

    def in_pod(self, pod: str, container: str, *words: str, given: bytes) -> bytes:
        program = [sys.executable if word == "python3" else word for word in words]
        for there, here in self._replaced.items():
            program = [word.replace(there, here) for word in program]
        done = subprocess.run(program, input=given, env=self._environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A private server with the schemas of all stores."""
    try:
        with PostgresServer() as server:
            postgres.prepare(server.urls, lambda _: None)
            yield server
    except NotAvailable as missing:
        pytest.skip(str(missing))


async def run(url: str, *statements: str) -> list[str]:
    connection = await asyncpg.connect(url)
    found: list[str] = []
    for statement in statements:
        found = [row[0] for row in await connection.fetch(statement)]
    await connection.close()
    return found


def test_a_restored_database_has_what_was_published_during_the_backup(server: PostgresServer, tmp_path: Path) -> None:
    shop, another = (f"postgresql://postgres@/{name}?host={server.sockets}" for name in ("shop", "another"))
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, letters in ((old, "kept"), (new, "nothing")):
        folder.mkdir()
        with closing(sqlite3.connect(folder / "deadletters.db")) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE entries AS SELECT ? AS id", (letters,))
            db.commit()
    site = Pods(tmp_path, old, server, "shop")
    remove = "DELETE FROM orders.outbox"
    with site.outbox_kept():
        left = asyncio.run(run(shop, _ROW.format("published"), remove, "SELECT id FROM orders.outbox"))
        assert left == ["published"]
        site.save_data()
    assert asyncio.run(run(shop, remove, "SELECT id FROM orders.outbox")) == []

    asyncio.run(run(shop, "CREATE DATABASE another"))
    Pods(tmp_path, new, server, "another").restore_data()

    assert asyncio.run(run(another, "SELECT id FROM orders.outbox")) == ["published"]
    assert asyncio.run(run(another, remove, "SELECT id FROM orders.outbox")) == []
    assert asyncio.run(run(another, "SELECT epoch::text FROM orders.store")) != ["0"]
    with closing(sqlite3.connect(new / "deadletters.db")) as db:
        assert db.execute("SELECT id FROM entries").fetchall() == [("kept",)]
    assert {path.name for path in new.iterdir()} <= {f"deadletters.db{end}" for end in ("", "-wal", "-shm")}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_nothing_that_uses_the_data_is_applied_before_it_is_there() -> None:
    objects = rendered(Path(__file__).parents[2] / "knative/overlays/dev")
    first = {(item["kind"], item["metadata"]["name"]) for item in objects if is_needed_first(item)}
    assert {("Job", "secrets"), ("StatefulSet", "postgres"), ("StatefulSet", "dead-letters")} <= first
    kinds = {kind for kind, _ in first}
    assert not kinds & {"Broker", "Trigger", "PingSource", "VirtualService"}
    assert ("Job", "migrate") not in first
    assert not any("serving.knative.dev" in item["apiVersion"] for item in objects if is_needed_first(item))
